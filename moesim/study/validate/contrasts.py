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
    absent = not_in_file(file)
    speed = {one.case: one for one in [*records, *_both_ways(records)] if _is_speed(one)}
    found = []
    for kind, names, pairs in _LISTS:
        for pair in getattr(file, pairs):
            one, other = (str(pair.get(name)) for name in names)
            if one in asked and other in asked:
                found.append(_record(pair, (asked[one], asked[other]), kind, speed))
            elif missing := [name for name in (one, other) if name in absent]:
                found.append(_lost(pair, f"{one} -> {other}", kind, missing))
    return found


def _is_speed(record: Record) -> bool:
    return record.metric in SPEEDS and bool(record.predicted)


def _both_ways(records: list[Record]) -> list[Record]:
    """Return the speed of every case that was measured forward and backward: both together."""
    times = {(one.case, one.metric): one for one in records if one.predicted and one.measured}
    found = []
    for (case, metric), one in times.items():
        back = times.get((case, "backward_ms"))
        if metric == "forward_ms" and back is not None:
            total = (one.predicted or 0.0) + (back.predicted or 0.0)
            measured = (one.measured or 0.0) + (back.measured or 0.0)
            found.append(ran(one, "forward_backward_ms", total, measured))
    return found


_LISTS = (("moe_vs_dense", ("dense", "moe"), "pairs"), ("contrast", ("a", "b"), "contrasts"))
"""Kind of the record, the keys of both cases, and where the file has them."""


def not_in_file(file: CaseFile) -> set[str]:
    """Return the ids that pairs and contrasts name and that no case of the file has."""
    have = {case.id for case in file.cases}
    named = {
        str(pair.get(name))
        for _, names, pairs in _LISTS
        for pair in getattr(file, pairs)
        for name in names
    }
    return named - have


def _lost(pair: Words, case: str, kind: str, missing: list[str]) -> Record:
    return Record(
        case=case, source="", chip="", model="", cls="moe", kind=kind,
        quality=str(pair.get("quality", "")), metric=_metric(kind),
        reason=f"{' and '.join(missing)} is no case of the file",
    )  # fmt: skip


def _metric(kind: str) -> str:
    return "efficiency_ratio" if kind == "moe_vs_dense" else "speedup"


def _record(
    pair: Words, both: tuple[Case, Case], kind: str, speed: Mapping[str, Record]
) -> Record:  # fmt: skip
    before, after = both
    base = replace(
        blank(after),
        case=f"{before.id} -> {after.id}",
        kind=kind,
        quality=str(pair.get("quality", _worse(before, after))),
        metric=_metric(kind),
    )
    missing = [case.id for case in both if case.id not in speed]
    if missing:
        return replace(base, reason=f"{' and '.join(missing)} was skipped")
    units = [_unit(speed[case.id], case) for case in both]
    if units[0] != units[1]:
        return replace(base, reason=f"{units[0]} and {units[1]} per second have no ratio")
    needed = (base.metric, *(["flop_ratio"] if kind == "moe_vs_dense" else []))
    figures = [value for name in needed if (value := number(pair.get(name)))]
    if len(figures) < len(needed):
        return replace(base, reason=f"{' and '.join(needed)} must be there, as numbers but 0")
    rates = [per_device_rate(speed[case.id], case) for case in both]
    flop = figures[1] if kind == "moe_vs_dense" else 1.0
    return ran(base, base.metric, rates[1] / rates[0] / flop, figures[0])


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
    return (_tokens_per_device(case) or 1.0) / record.predicted


def _tokens_per_device(case: Case) -> float | None:
    """Return the tokens of a step and device, where the case states batch and devices."""
    cut, chips = case.part("parallel"), number(case.words.get("chips"))
    batch, length = number(cut.get("gbs")), number(cut.get("seq"))
    return batch * length / chips if batch and length and chips else None


def _unit(record: Record, case: Case) -> str:
    if record.metric == "examples_per_s":
        return "examples"
    by_tokens = record.metric == "tokens_per_s_per_gpu" or _tokens_per_device(case)
    return "tokens" if by_tokens else "steps"
