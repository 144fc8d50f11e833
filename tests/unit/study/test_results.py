"""What a run leaves behind: files, tables and timeline agree with each other."""

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import pytest

import moesim
from moesim.errors import ScenarioError
from moesim.study.report.files import contents
from moesim.study.report.trace import trace
from tests.unit.study.scenarios import small

TWIN = "baseline: {equal: active_params}"


def test_parts_of_a_step_sum_to_it(tmp_path: Path) -> None:
    outcome = moesim.run(small(tmp_path)).outcome
    total = sum(share.seconds for share in outcome.breakdown)
    assert total == pytest.approx(outcome.metrics.step_s, rel=1e-9)


def test_rates_follow_from_the_step_time(tmp_path: Path) -> None:
    metrics = moesim.run(small(tmp_path, "", "training.tokens=1 Gtokens")).outcome.metrics
    assert metrics.tokens_per_step == 16 * 1024
    assert metrics.tokens_per_s == pytest.approx(16 * 1024 / metrics.step_s)
    # eight devices at 2 USD/h
    assert metrics.usd_per_million_tokens == pytest.approx(
        8 * 2 / 3600 * 1e6 / metrics.tokens_per_s
    )
    assert metrics.training_days == pytest.approx(1e9 / metrics.tokens_per_s / 86400)
    assert metrics.training_usd == pytest.approx(8 * 2 * 24 * (metrics.training_days or 0))
    # useful FLOP over time and the H100's 989.4 TFLOP/s of bf16
    achieved = metrics.model_flop_per_token * metrics.tokens_per_s / 8
    assert metrics.mfu_fraction == pytest.approx(achieved / 989.4e12)


def test_tracks_never_overlap(tmp_path: Path) -> None:
    events = trace(moesim.run(small(tmp_path, TWIN)))["traceEvents"]
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X":
            key = (event["pid"], event["tid"])
            tracks.setdefault(key, []).append((event["ts"], event["dur"]))
    assert len(tracks) > 4
    for slices in tracks.values():
        slices.sort()
        for (start, duration), (following, _) in pairwise(slices):
            assert round(following * 1000) >= round(start * 1000) + round(duration * 1000)


def test_files_are_all_there_and_readable(tmp_path: Path) -> None:
    result = moesim.run(small(tmp_path, TWIN))
    folder = result.save(tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == set(contents(result))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model"]["name"] == "olmoe-1b-7b"
    assert summary["baselines"][0]["relation"] == "equal active parameters"
    for name in result.tables():
        rows = list(csv.DictReader(io.StringIO((folder / f"{name}.csv").read_text())))
        assert rows, name


def test_frames_and_figures_mirror_tables_and_charts(tmp_path: Path) -> None:
    result = moesim.run(small(tmp_path, TWIN))
    assert set(result.frames) == set(result.tables())
    assert len(result.frames["memory"]) == len(result.tables()["memory"])
    assert {"breakdown", "memory", "memory_timeline", "timeline", "routing"} == set(result.figures)
    assert result.figures["memory"].data


def test_an_earlier_result_is_replaced(tmp_path: Path) -> None:
    result = moesim.run(small(tmp_path))
    before = (result.save(tmp_path / "out") / "steps.csv").stat().st_ino
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "steps.csv").stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_result_with_somebodys_notes_is_left_alone(tmp_path: Path) -> None:
    result = moesim.run(small(tmp_path))
    result.save(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("what I think of it")
    with pytest.raises(ScenarioError, match=r"notes\.txt"):
        result.save(tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "what I think of it"


def test_a_link_to_a_directory_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    moesim.run(small(tmp_path)).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "summary.json").is_file()


def test_other_peoples_directories_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ScenarioError, match="no moesim result"):
        moesim.run(small(tmp_path)).save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ScenarioError, match="cannot write"):
        moesim.run(small(tmp_path)).save(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_failing_write_keeps_the_earlier_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = moesim.run(small(tmp_path))
    before = (result.save(tmp_path / "out") / "summary.json").read_bytes()

    def full(self: Path, *_args: object, **_kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ScenarioError, match="No space left"):
        result.save(tmp_path / "out")
    assert (tmp_path / "out" / "summary.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
