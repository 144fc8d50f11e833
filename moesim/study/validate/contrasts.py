"""MoE over dense on the same machines, and one change at a time: ratios of predicted speeds."""

from collections.abc import Mapping
from dataclasses import replace

from moesim.spec.cases import Case, CaseFile, Words
from moesim.study.validate.record import Record, blank, ran

SPEEDS = ("step_time_s", "tokens_per_s_per_gpu", "examples_per_s", "forward_backward_ms")


def compared_pairs(file: CaseFile, cases: list[Case], records: list[Record]) -> list[Record]:
    """Return a record for each pair and contrast whose two cases were asked for."""
    asked = {case.id: case for case in cases}
    speed = {one.case: one for one in records if one.metric in SPEEDS}
    found = [
        _record(pair, ("dense", "moe"), "moe_vs_dense", asked, speed)
        for pair in file.pairs
        if pair.get("dense") in asked and pair.get("moe") in asked
    ]
    return found + [
        _record(one, ("a", "b"), "contrast", asked, speed)
        for one in file.contrasts
        if one.get("a") in asked and one.get("b") in asked
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
    ratio = per_device_rate(speed[after], asked[after]) / per_device_rate(
        speed[before], asked[before]
    )
    if kind == "moe_vs_dense":
        ratio /= float(pair["flop_ratio"])
    return ran(base, base.metric, ratio, float(pair[base.metric]))


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
