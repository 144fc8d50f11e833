"""The words and orders that terminal and page of a validation share."""

from collections import defaultdict
from collections.abc import Iterable

from moesim.study.validate.record import Record
from moesim.study.validate.scores import Score, score, source_name

BIAS = "median and p90: of absolute errors; bias: + is slower or larger than measured"

_SHORT = {
    "step_time_s": "step, s",
    "tokens_per_s_per_gpu": "tokens/s a chip",
    "examples_per_s": "examples/s",
    "peak_memory_alloc_gib": "allocated, GiB",
    "peak_memory_reserved_gib": "reserved, GiB",
    "peak_mem_allocated_gb": "allocated, GB",
    "peak_mem_allocated_gib_rank0": "rank 0, GiB",
    "mem_allocated_gb": "steady, GB",
    "peak_memory_gb": "peak, GB",
    "peak_mem_gb": "peak, GB",
    "efficiency_ratio": "MoE over dense",
    "speedup": "speed-up",
}
_PAIRS = {"moe_vs_dense": "MoE over dense", "contrast": "One change at a time",
          "moe_over_dense": "MoE over dense, serving"}  # fmt: skip


def short_metric(metric: str) -> str:
    """Return a metric in few characters; files keep its long name."""
    return _SHORT.get(metric, metric)


def heading(record: Record) -> str:
    """Return under what a record is listed: its source, or the kind of pair it is."""
    return _PAIRS.get(record.kind) or source_name(record.source)


def by_source(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return records under their headings, in the order of the files."""
    found: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        found[heading(one)].append(one)
    return dict(found)


def by_column(records: Iterable[Record]) -> dict[tuple[str, str], Score]:
    """Return the score of each column of a table: rows of one case under one name."""
    found: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for one in records:
        if one.row is not None:
            found[one.case, one.metric].append(one)
    return {name: score(name, rows) for name, rows in found.items()}


def by_reason(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return the cases that were skipped, by the reason; pairs, whose cases were, at the end."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in records:
        if one.status != "ran" and one.kind not in _PAIRS and one.case not in found[one.reason]:
            found[one.reason].append(one.case)
    for one in records:
        if one.status != "ran" and one.kind in _PAIRS:
            found["a case of the pair was skipped"].append(one.case)
    return {reason: cases for reason, cases in found.items() if cases}


def pair(case: str) -> str:
    """Return the two cases of a pair in two lines, any other as it is."""
    before, arrow, after = case.partition(" -> ")
    return f"{before}\n  -> {after}" if arrow else case


def number(value: float | None) -> str:
    """Return a figure with four significant digits, never as a power of ten where it is large."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def plain(value: float | None) -> str:
    """Return a share in percent, one decimal."""
    return "-" if value is None else f"{100 * value:.1f} %"


def signed(value: float | None) -> str:
    """Return a relative error in percent with its sign."""
    return "-" if value is None else f"{round(100 * value, 1) + 0.0:+.1f} %"
