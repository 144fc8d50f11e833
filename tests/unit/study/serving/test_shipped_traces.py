"""The shipped traces: drawn again they are the same, and they have the measures of public ones."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from moesim.sim.serving.requests import Requests
from moesim.spec.serving.traces import TraceSpec
from moesim.spec.shipped import shipped
from moesim.study.serving.traces.replay import traced
from moesim.study.serving.traces.write import write_trace

FOLDER = shipped("scenarios") / "traces"
MAKER = runpy.run_path(str(FOLDER / "make_serving_traces.py"))


def replayed(name: str) -> Requests:
    return traced(TraceSpec(file=name), FOLDER / name, timed=True)


def test_azure_s_is_drawn_again() -> None:
    assert MAKER["azure"]().encode() == (FOLDER / "azure-like-conversation.csv").read_bytes()


def test_mooncake_s_is_drawn_again(tmp_path: Path) -> None:
    write_trace(MAKER["mooncake"](), tmp_path / "again.jsonl")
    shown = (FOLDER / "mooncake-like-conversation.jsonl").read_bytes()
    assert (tmp_path / "again.jsonl").read_bytes() == shown


@pytest.mark.parametrize(
    ("name", "means", "medians", "rate", "cv"),
    [
        ("azure-like-conversation.csv", (1155, 211), (1020, 129), 5.53, 1.09),
        ("mooncake-like-conversation.jsonl", (12035, 343), (6909, None), 3.40, None),
    ],
)
def test_measures_are_near_those_counted_in_the_public_traces(
    name: str,
    means: tuple[int, int],
    medians: tuple[int, int | None],
    rate: float,
    cv: float | None,
) -> None:
    """Of some thousand draws; Mooncake's outputs and gaps are not lognormal and bucketed."""
    asked = replayed(name)
    for column, mean, median in zip((asked.prompt, asked.output), means, medians, strict=True):
        assert float(np.mean(column)) == pytest.approx(mean, rel=0.08)
        if median is not None:
            assert float(np.median(column)) == pytest.approx(median, rel=0.05)
    gaps = np.diff(np.asarray(asked.arrival)) / 1e12
    assert 1 / gaps.mean() == pytest.approx(rate, rel=0.05)
    if cv is not None:
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.15)


def test_an_unbounded_cache_finds_about_as_much_as_in_mooncake_s() -> None:
    """37.4 % there; less here by as much as the law of turns leaves out. One beginning for all."""
    asked = replayed("mooncake-like-conversation.jsonl")
    assert asked.prefix is not None and asked.prefix_block == 512
    assert asked.session is not None
    assert {asked.prefix[n][0] for n in range(len(asked)) if len(asked.prefix[n]) > 1} == {0}
    seen: set[int] = set()
    found = 0
    for number, prompt in enumerate(asked.prompt):
        ids = asked.prefix[number]
        assert len(ids) == -(-prompt // 512)
        known = next((n for n, one in enumerate(ids) if one not in seen), len(ids))
        found += min(known * 512, prompt)
        seen.update(ids)
    assert found / sum(asked.prompt) == pytest.approx(0.374, abs=0.05)
