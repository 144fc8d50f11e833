"""Recorded errors: a group that got worse is found, and moesim's own cases are as recorded."""

from dataclasses import replace
from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.cases import read_cases
from moesim.spec.shipped import shipped
from moesim.study.validate.expected import TOLERANCE, as_csv, changes, read_expected
from moesim.study.validate.inference.judged import KINDS
from moesim.study.validate.record import Record, ran
from moesim.study.validate.run import validate

BLANK = Record(
    case="c", source="someone/trainer:file@1", chip="h100", model="m", cls="moe",
    kind="train_step", quality="A",
)  # fmt: skip
STEPS = [ran(BLANK, "step_time_s", predicted, 1.0) for predicted in (1.1, 0.8, 1.3)]
GROUP = "someone/trainer / moe / train_step / A / speed"


def recorded(tmp_path: Path, records: list[Record]) -> Path:
    path = tmp_path / "expected.csv"
    path.write_text(as_csv(records), encoding="utf-8")
    return path


def test_median_p90_and_bias_of_a_group_are_recorded() -> None:
    # |errors| 0.1, 0.2, 0.3: the median is the middle one, the 90th percentile 0.2 + 0.8 * 0.1
    # and the bias (0.1 - 0.2 + 0.3) / 3.
    assert as_csv([*STEPS, BLANK]).splitlines() == [
        "source,class,kind,quality,metric,ran,total,median,p90,bias",
        "someone/trainer,moe,train_step,A,skipped,0,1,,,",
        "someone/trainer,moe,train_step,A,speed,3,3,0.2000,0.2800,0.0667",
    ]


def test_a_rate_too_high_leans_like_a_time_too_short() -> None:
    # Twice the rate is half the time: -0.5, like a predicted time of half the measured one.
    fast = [ran(BLANK, "tokens_per_s_per_gpu", 2.0, 1.0), ran(BLANK, "step_time_s", 0.5, 1.0)]
    assert as_csv(fast).splitlines()[1].endswith(",-0.5000")


def test_what_was_recorded_a_moment_ago_is_neither_worse_nor_better(tmp_path: Path) -> None:
    found = changes(read_expected(recorded(tmp_path, [*STEPS, BLANK])), [*STEPS, BLANK])
    assert (found.worse, found.better, found.new) == ((), (), ())


def test_a_larger_median_is_worse_beyond_the_tolerance_only(tmp_path: Path) -> None:
    expected = read_expected(recorded(tmp_path, [ran(BLANK, "step_time_s", 1.2, 1.0)]))
    within = [ran(BLANK, "step_time_s", 1.2 + 0.9 * TOLERANCE, 1.0)]
    beyond = [ran(BLANK, "step_time_s", 0.7, 1.0)]
    assert changes(expected, within).worse == ()
    assert changes(expected, beyond).worse == (
        f"{GROUP}: median 30.0 %, recorded 20.0 %",
        f"{GROUP}: p90 30.0 %, recorded 20.0 %",
    )


def test_a_smaller_error_is_better_and_no_failure(tmp_path: Path) -> None:
    found = changes(
        read_expected(recorded(tmp_path, [ran(BLANK, "step_time_s", 1.2, 1.0)])),
        [ran(BLANK, "step_time_s", 1.0, 1.0)],
    )
    assert found.worse == ()
    assert found.better[0] == f"{GROUP}: median 0.0 %, recorded 20.0 %"


def test_a_case_that_no_longer_runs_is_worse(tmp_path: Path) -> None:
    expected = read_expected(recorded(tmp_path, STEPS))
    skipped = replace(BLANK, reason="a reason")
    assert f"{GROUP}: 2 ran, recorded 3" in changes(expected, [*STEPS[:2], skipped]).worse
    assert changes(expected, [skipped]).worse == (f"{GROUP}: 0 ran, recorded 3",)


def test_a_group_that_ran_and_was_not_recorded_is_named(tmp_path: Path) -> None:
    found = changes(read_expected(recorded(tmp_path, [BLANK])), [BLANK, *STEPS])
    assert (found.worse, found.new) == ((), (f"{GROUP}: 3 ran",))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "case,error\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"other\.csv:1:1: must have the columns source,class"):
        read_expected(path)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = recorded(tmp_path, STEPS)
    path.write_text(path.read_text(encoding="utf-8").replace(",3,3,", ",three,3,"), "utf-8")
    with pytest.raises(ScenarioError, match=r"expected\.csv:2:1: is no row of a record"):
        read_expected(path)


def test_the_cases_of_training_are_as_far_off_as_recorded() -> None:
    # Those of serving: inference/test_own_cases.py. A group's kind stands third in its name.
    file = read_cases(shipped("validation") / "cases" / "training.yaml")
    recorded = read_expected(shipped("validation") / "expected.csv")
    trained = {name: one for name, one in recorded.items() if name[2] not in KINDS}
    found = changes(trained, validate(file, file.cases))
    again = "moesim validate --record validation/expected.csv"
    assert found.worse == (), f"explain it in the commit, then: {again}"
    assert found.new == (), again
