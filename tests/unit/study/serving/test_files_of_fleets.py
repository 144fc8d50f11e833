"""Files of many replicas stay small: points and iterations are shared among them."""

from pathlib import Path

import pytest

from moesim.study.report.serving import trace as traces
from moesim.study.serving import series as points
from moesim.study.serving.simulate import ServingOutcome, simulate
from tests.unit.study.serving.served import served

LOAD = (
    "workload: {rate: 40 /s, requests: 400, prompt: 300, "
    "output: {law: uniform, low: 50, high: 150}}"
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> ServingOutcome:
    folder: Path = tmp_path_factory.mktemp("fleet")
    return simulate(served(folder, "olmoe-1b-7b", devices=4, serving=LOAD))


def test_replicas_share_the_points_of_the_series(
    fleet: ServingOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = points.series(fleet)
    monkeypatch.setattr(points, "ALL", 4 * 90)
    few = points.series(fleet)
    for replica in range(4):
        mine = [row for row in few if row["replica"] == replica]
        all_of_it = [row for row in whole if row["replica"] == replica]
        assert 30 <= len(mine) <= 90 < len(all_of_it)
        assert mine[-1] == all_of_it[-1]
    monkeypatch.setattr(points, "ALL", 4)
    assert len(points.series(fleet)) <= 4 * points.LEAST


def test_replicas_share_the_iterations_of_the_trace(
    fleet: ServingOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "ALL", 4 * 25)
    events = traces.trace(fleet)["traceEvents"]
    for replica in range(4):
        mine = [one for one in events if one["ph"] == "X" and one["pid"] == replica]
        assert len(mine) == 25
        (name,) = (
            one["args"]["name"]
            for one in events
            if one["pid"] == replica and one["name"] == "process_name"
        )
        assert name == f"replica {replica} (the first 25 iterations)"
        last = max(one["ts"] + one["dur"] for one in mine)
        counters = [one["ts"] for one in events if one["ph"] == "C" and one["pid"] == replica]
        assert counters and max(counters) <= last
