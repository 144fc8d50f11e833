"""Data that comes late costs time; data that comes early costs none."""

from pathlib import Path

import pytest

from moesim.cost.data_loading import data_loading_s, stored_bytes_per_token
from moesim.errors import ScenarioError
from moesim.study.outcome import Outcome
from moesim.study.report.trace import events_of
from moesim.study.report.words import verdict
from moesim.study.resolve import resolve
from moesim.study.run import run
from moesim.study.simulate import simulate
from tests.unit.study.scenarios import small

TOKENS = 16 * 1024


def _run(folder: Path, loading: str = "") -> Outcome:
    given = [f"training.data_loading={loading}"] if loading else []
    return simulate(resolve(small(folder, "", *given)))


def test_the_slower_of_storage_and_preparation_counts() -> None:
    assert data_loading_s(1000, 4, 2000, None) == 2
    assert data_loading_s(1000, 4, None, 250) == 4
    assert data_loading_s(1000, 4, 2000, 250) == 4
    assert data_loading_s(1000, 4, None, None) == 0


def test_a_file_of_token_numbers_has_two_or_four_bytes_each() -> None:
    assert stored_bytes_per_token(50_304) == 2
    assert stored_bytes_per_token(129_280) == 4


def test_data_in_time_costs_nothing(tmp_path: Path) -> None:
    assert _run(tmp_path, "{storage_bandwidth: 1 TB/s}").metrics == _run(tmp_path).metrics


def test_late_data_sets_the_pace_of_the_steps(tmp_path: Path) -> None:
    """A step of 16 * 1024 tokens at 100 tokens/s takes 163.84 s, whatever the devices do."""
    free, held = _run(tmp_path), _run(tmp_path, "{tokens_per_s: 100 tokens/s}")
    assert held.metrics.step_s == pytest.approx(TOKENS / 100)
    assert held.metrics.tokens_per_s == pytest.approx(100)
    assert held.metrics.exposed_fraction < free.metrics.exposed_fraction
    waited = {share.name: share.seconds for share in held.breakdown}["data loading"]
    assert waited == pytest.approx(TOKENS / 100 - free.metrics.step_s)
    said = verdict(run(small(tmp_path, "", "training.data_loading={tokens_per_s: 100 tokens/s}")))
    assert any("The data of a step comes too late" in line for line in said)
    assert sum(share.seconds for share in held.breakdown) == pytest.approx(held.metrics.step_s)


def test_bytes_per_token_follow_the_vocabulary_or_what_is_given(tmp_path: Path) -> None:
    """OLMoE has 50,304 words: two bytes a token, 16 * 1024 * 2 bytes at 1 kB/s."""
    assert _run(tmp_path, "{storage_bandwidth: 1 kB/s}").metrics.step_s == pytest.approx(
        2 * TOKENS / 1e3
    )
    given = "{storage_bandwidth: 1 kB/s, bytes_per_token: 6}"
    assert _run(tmp_path, given).metrics.step_s == pytest.approx(6 * TOKENS / 1e3)


def test_the_trace_shows_loading_beside_the_passes(tmp_path: Path) -> None:
    events = events_of(_run(tmp_path, "{tokens_per_s: 100 tokens/s}"), "model")
    [found] = [one for one in events if one["name"] == "load data of the next step"]
    assert (found["ts"], found["dur"]) == (0.0, pytest.approx(TOKENS / 100 * 1e6))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{}", "give storage_bandwidth, tokens_per_s or both"),
        ("{bytes_per_token: 2, tokens_per_s: 1 tokens/s}", "bytes_per_token needs"),
        ("{storage_bandwidth: 0 B/s}", "storage_bandwidth must be above zero"),
        ("{tokens_per_s: 5}", "2 Mtokens/s"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, settings: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        _run(tmp_path, settings)
