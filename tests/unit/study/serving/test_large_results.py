"""Files of large runs keep to limits, and say so."""

from collections import Counter

import pytest

from moesim.spec.load import load_serving
from moesim.study.report.serving import bench_json, trace
from moesim.study.serving import curve, series
from moesim.study.serving.result import ServingResult
from moesim.study.serving.run import serve

THREE = """
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 3}
serving:
  workload: {rate: 60 /s, requests: 300, prompt: 200, output: 30}
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ServingResult:
    file = tmp_path_factory.mktemp("large") / "three.yaml"
    file.write_text(THREE, encoding="utf-8")
    return serve(load_serving(file))


def test_requests_beyond_the_limit_are_not_listed(
    result: ServingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = bench_json.bench(result)
    assert len(listed["ttfts"]) == 300
    monkeypatch.setattr(bench_json, "MOST_LISTED", 299)
    short = bench_json.bench(result)
    assert short.pop("note") == "more than 299 requests: requests.parquet lists them"
    assert short == {name: listed[name] for name in short}
    assert "ttfts" not in short


def test_replicas_share_the_points_of_the_time_series(
    result: ServingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = series.series(result.model.outcome)
    monkeypatch.setattr(series, "ALL", 180)
    few = series.series(result.model.outcome)
    counts = Counter(row["replica"] for row in few)
    assert set(counts) == {0, 1, 2}
    assert max(counts.values()) <= 60 < min(Counter(row["replica"] for row in whole).values())
    assert all(row in whole for row in few)


def test_replicas_share_the_iterations_of_the_trace(
    result: ServingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "ALL", 30)
    events = trace.trace(result.model.outcome)["traceEvents"]
    assert Counter(one["pid"] for one in events if one["ph"] == "X") == {0: 10, 1: 10, 2: 10}
    names = [one["args"]["name"] for one in events if one.get("name") == "process_name"]
    assert names[0] == "replica 0 (the first 10 iterations)"


def test_the_curve_ends_where_a_point_has_too_many_requests(
    result: ServingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three requests a place on three replicas: 1, 2 and 4 a replica are 9, 18 and 36."""
    assert len(result.model.curve) > 3
    monkeypatch.setattr(curve, "MOST", 35)
    found = curve.curve(result.model.outcome)
    assert [point.concurrency for point in found] == [3, 6]
    assert found == result.model.curve[:2]
