"""Memory over the first step: its table, and its picture."""

from typing import Any

from moesim.study.memory_timeline import Level, memory_timeline
from moesim.study.outcome import Outcome

_MOST_LEVELS = 1000
"""Levels of a stage in the picture; those left out repeat the ones before."""
_MOST_STAGES = 8

Rows = list[dict[str, Any]]


def memory_levels(outcome: Outcome) -> Rows:
    """Return a row for each stretch of a stage's first step in which its bytes stay the same."""
    return [
        {
            "stage": stage,
            "start_s": level.start_s,
            "doing": level.doing,
            "micro_batches_held": " ".join(str(count) for count in level.held),
            "activations_bytes": level.memory.activations,
            "working_set_bytes": level.memory.working_set,
            "fragmentation_bytes": level.memory.fragmentation,
            "total_bytes": level.memory.total,
        }
        for stage in range(outcome.run.layout.pp)
        for level in memory_timeline(outcome, stage)
    ]


def drawn_stages(stages: int) -> list[int]:
    """Return the stages to draw: all, or as many evenly spaced ones, first and last among them."""
    if stages <= _MOST_STAGES:
        return list(range(stages))
    step = (stages - 1) / (_MOST_STAGES - 1)
    return [round(number * step) for number in range(_MOST_STAGES)]


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    """Return for each stage the bytes in all over the first step, as steps of a line."""
    return [_line(outcome, stage) for stage in drawn_stages(outcome.run.layout.pp)]


def _line(outcome: Outcome, stage: int) -> dict[str, Any]:
    levels = _thinned(memory_timeline(outcome, stage))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"stage {stage}",
        "x": [round(one.start_s, 6) for one in levels] + [round(outcome.first.seconds, 6)],
        "y": [round(one.memory.total / 2**30, 4) for one in (*levels, levels[-1])],
        "text": [one.doing for one in (*levels, levels[-1])],
        "line": {"shape": "hv", "width": 1.3},
    }


def _thinned(levels: tuple[Level, ...]) -> list[Level]:
    """Return the first levels and the last ones, the fullest among them."""
    if len(levels) <= _MOST_LEVELS:
        return list(levels)
    half = _MOST_LEVELS // 2
    middle = max(levels[half:-half], key=lambda one: one.memory.total)
    return [*levels[:half], middle, *levels[-half:]]
