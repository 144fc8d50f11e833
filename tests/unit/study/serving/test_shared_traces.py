"""The reference traces: what was counted of them by others, and the traps that they hold."""

import numpy as np
import pytest

from moesim.sim.serving.requests import Requests
from moesim.spec.serving.traces import TraceSpec
from moesim.study.serving.traces.read import read_rows
from moesim.study.serving.traces.replay import traced
from tests.shared_files import shared

S = 10**12


def replayed(name: str, **keys: object) -> Requests:
    path = shared(f"traces/{name}")
    return traced(TraceSpec(file=str(path), **keys), path, timed=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "rows", "means", "medians", "span_s", "cv"),
    [
        ("azure2023_code.csv", 8819, (2048, 28), (1469, 13), 3436, 13.15),
        ("azure2023_conv.csv", 19366, (1155, 211), (1020, 129), 3502, 1.09),
        ("mooncake_fast25_conversation.jsonl", 12031, (12035, 343), (6909, 350), 3537, 3.03),
        ("mooncake_fast25_synthetic.jsonl", 3993, (15325, 149), (11587, 69), 1022, 1.01),
        ("sharegpt_llmservingsim_300_lengths.jsonl", 300, (857, 653), (732, 632), 29, 0.94),
    ],
)
def test_statistics_are_those_of_the_folders_table(
    name: str,
    rows: int,
    means: tuple[int, int],
    medians: tuple[int, int],
    span_s: int,
    cv: float,
) -> None:
    asked = replayed(name)
    assert len(asked) == rows
    for column, mean, median in zip((asked.prompt, asked.output), means, medians, strict=True):
        assert float(np.mean(column)) == pytest.approx(mean, abs=0.5)
        assert float(np.median(column)) == pytest.approx(median, abs=0.5)
    gaps = np.diff(np.asarray(asked.arrival) / S)
    assert gaps.sum() == pytest.approx(span_s, abs=0.5)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.006)


def test_lengths_without_times() -> None:
    path = shared("traces/arxiv_summarization_lengths_llama2.csv")
    asked = traced(TraceSpec(file=str(path)), path, timed=False)
    assert (len(asked), max(asked.arrival)) == (28_257, 0)
    assert float(np.mean(asked.prompt)) == pytest.approx(2588, abs=0.5)
    assert float(np.percentile(asked.output, 99)) == pytest.approx(3271, abs=1)


def test_burstgpt_of_six_columns() -> None:
    rows = read_rows(shared("traces/burstgpt_format_3rows.csv"))
    assert (rows.prompt, rows.output) == ([472, 1087, 417], [18, 230, 276])
    assert rows.at == [5 * S, 45 * S, 118 * S]
    assert not rows.session


def test_many_of_mooncakes_arrivals_are_one_and_stay_in_the_files_order() -> None:
    asked = replayed("mooncake_fast25_conversation.jsonl")
    gaps = np.diff(np.asarray(asked.arrival))
    assert int((gaps == 0).sum()) == 10_851
    assert list(asked.prompt[:4]) == [6758, 7322, 7236, 2290]


@pytest.mark.parametrize(
    ("name", "hits"),
    [("mooncake_fast25_conversation.jsonl", 0.374), ("mooncake_fast25_synthetic.jsonl", 0.651)],
)
def test_prefix_hits_of_an_unbounded_cache(name: str, hits: float) -> None:
    asked = replayed(name)
    assert asked.prefix is not None
    seen: set[int] = set()
    found = 0
    for number, prompt in enumerate(asked.prompt):
        ids = asked.prefix[number]
        known = next((n for n, one in enumerate(ids) if one not in seen), len(ids))
        found += min(known * asked.prefix_block, prompt)
        seen.update(ids)
    assert found / sum(asked.prompt) == pytest.approx(hits, abs=0.0005)


def test_windows_speed_head_and_caps() -> None:
    whole = replayed("azure2023_conv.csv")
    part = replayed("azure2023_conv.csv", start="600 s", end="1200 s", speed=2.0)
    inside = [at for at in whole.arrival if 600 * S <= at < 1200 * S]
    assert list(part.arrival) == [round((at - 600 * S) / 2) for at in inside]
    assert part.arrival[0] >= 0 and part.arrival[-1] < 300 * S
    head = replayed("azure2023_conv.csv", start="600 s", head=10, longest_prompt=500)
    assert list(head.arrival) == [at - 600 * S for at in inside[:10]]
    assert max(head.prompt) == 500
    cut = replayed("mooncake_fast25_synthetic.jsonl", longest_prompt=1000, longest_output=7)
    assert cut.prefix is not None
    assert max(len(cut.prefix[n]) for n in range(len(cut))) == 2  # 1000 tokens: a block and a part
    assert max(cut.output) == 7
