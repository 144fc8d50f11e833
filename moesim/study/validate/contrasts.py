"""MoE over dense on the same machines, and one change at a time: ratios of predicted speeds."""

from collections.abc import Mapping
from dataclasses import replace

from moesim.spec.cases import Case, CaseFile, Words
from moesim.study.validate.figures import number
from moesim.study.validate.record import Record, blank, ran

SPEEDS = ("step_time_s", "tokens_per_s_per_gpu", "examples_per_s", "forward_backward_ms")


def compared_pairs(file: CaseFile, cases: list[Case], records: list[Record]) -> list[Record]:
    """Return a record for each pair and contrast whose two cases were asked for."""
    asked = {case.id: case for case in cases}
    speed = {one.case: one for one in records if one.metric in SPEEDS}
    found = [
        _record(pair, ("dense", "moe"), "moe_vs_dense", asked, speed)
        for pair in file.pairs
        if {str(pair.get("dense")), str(pair.get("moe"))} <= asked.keys()
    ]
    return found + [
        _record(one, ("a", "b"), "contrast", asked, speed)
        for one in file.contrasts
        if {str(one.get("a")), str(one.get("b"))} <= asked.keys()
    ]


def _record(
    pair: Words, names: tuple[str, str], kind: str, asked: Mapping[str, Case],
    speed: Mapping[str, Record],
) -> Record:  # fmt: skip
    before, after = (str(pair[name]) for name in names)
    base = replace(
        blank(asked[after]),
        case=f"{before} -> {after}",
        kind=kind,
        quality=str(pair.get("quality", _worse(asked[before], asked[after]))),
        metric="efficiency_ratio" if kind == "moe_vs_dense" else "speedup",
    )
    missing = [name for name in (before, after) if name not in speed]
    if missing:
        return replace(base, reason=f"{' and '.join(missing)} was skipped")
    needed = (base.metric, *(["flop_ratio"] if kind == "moe_vs_dense" else []))
    figures = [number(pair.get(name)) for name in needed]
    if not all(figures):
        return replace(base, reason=f"{' and '.join(needed)} must be there, as numbers but 0")
    ratio = per_device_rate(speed[after], asked[after]) / per_device_rate(
        speed[before], asked[before]
    )
    if kind == "moe_vs_dense":
        ratio /= figures[1] or 1.0
    return ran(base, base.metric, ratio, figures[0] or 1.0)


def _worse(one: Case, other: Case) -> str:
    return max(one.text("quality"), other.text("quality"))


def per_device_rate(record: Record, case: Case) -> float:
    """Return the predicted speed of a case as tokens per second and device.

    Examples, and steps without a stated batch, keep their own unit: both sides of a pair are then
    in it.
    """
    assert record.predicted is not None
    if record.metric == "tokens_per_s_per_gpu":
        return record.predicted
    if record.metric == "examples_per_s":
        return record.predicted
    cut, chips = case.part("parallel"), case.words.get("chips")
    work = 1.0
    if isinstance(chips, int) and cut.get("gbs") and cut.get("seq"):
        work = cut["gbs"] * cut["seq"] / chips
    return work / record.predicted
