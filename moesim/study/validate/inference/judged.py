"""By what predictions of inference are judged: names of figures, head figures, falling ratios."""

from collections.abc import Callable, Iterable

from moesim.study.validate.inference.curve import ABOVE
from moesim.study.validate.inference.kinds import INFERENCE
from moesim.study.validate.inference.pairs import FALL, KIND
from moesim.study.validate.record import Record

KINDS = frozenset((*INFERENCE, KIND))

_GROUPS = (
    ("speed_tokens_s", "one request at a time"), ("ttft", "TTFT"), ("tpot", "TPOT"),
    ("itl", "TPOT"), ("e2e", "latency"), ("latency", "latency"), ("mean_latency", "latency"),
    ("dispatch_us", "all-to-all"), ("combine_us", "all-to-all"), ("TFLOPS", "products"),
    ("gpu_kv", "KV capacity"), ("total_kv", "KV capacity"), ("kv_mb", "KV per request"),
    ("weights", "weights"), ("uncompressed", "weights"), ("memory_gb", "weights"),
    ("gpu_memory", "memory of a process"), ("duration", "duration"),
)  # fmt: skip
"""How names of columns begin, and what they are."""


def figure(metric: str) -> str:
    """Return what a column of an inference case is, in words that tables group by."""
    plain, above, _ = metric.partition(ABOVE)
    if plain.endswith("_ratio") or plain == FALL:
        return "MoE over dense"
    for start, name in _GROUPS:
        if plain.startswith(start):
            return name + above
    return "throughput" if "tokens" in plain or "samples" in plain else plain or "skipped"


def engine(record: Record) -> str:
    """Return the engine of a record, without its version."""
    return record.software.partition(" ")[0]


RATES = frozenset({"throughput", "one request at a time", "products"})
"""Figures that are larger where things go faster."""

Test = Callable[[Record], bool]


def _of(name: str, *, cls: str = "") -> Test:
    return lambda one: figure(one.metric) == name and cls in ("", one.cls) and one.kind != KIND


HEADS: tuple[tuple[str, Test], ...] = (
    ("TPOT, dense", _of("TPOT", cls="dense")),
    ("TPOT, MoE", _of("TPOT", cls="moe")),
    ("TTFT below saturation", _of("TTFT")),
    ("TTFT above saturation", _of("TTFT" + ABOVE)),
    ("latency of requests", lambda one: figure(one.metric).startswith("latency")),
    ("one request at a time", _of("one request at a time")),
    ("offline throughput", lambda one: _of("throughput")(one) and one.kind == "offline_throughput"),
    (
        "throughput under load",
        lambda one: _of("throughput")(one) and one.kind.startswith("serving"),
    ),
    ("MoE over dense, serving", lambda one: one.kind == KIND and one.metric != FALL),
    ("change of that ratio with load", lambda one: one.metric == FALL),
    ("all-to-all", _of("all-to-all")),
    ("phases", lambda one: one.kind == "phase_breakdown"),
    ("weights", _of("weights")),
    ("KV capacity", _of("KV capacity")),
    ("memory of a process", _of("memory of a process")),
)
"""The head figures of an inference file, of quality A, A- and B."""

GOOD = ("A", "A-", "B")


def cases_that_ran(records: Iterable[Record]) -> dict[str, tuple[int, int]]:
    """Return by quality how many cases ran, and how many there are."""
    found: dict[str, dict[str, bool]] = {}
    for one in records:
        if one.kind in INFERENCE:
            of_quality = found.setdefault(one.quality, {})
            of_quality[one.case] = of_quality.get(one.case, False) or one.status == "ran"
    return {name: (sum(found[name].values()), len(found[name])) for name in sorted(found)}


def falls(records: Iterable[Record]) -> tuple[int, int]:
    """Return how many ratios of MoE over dense change with load as measured, and how many ran."""
    ran = [(one.predicted, one.measured) for one in records if one.metric == FALL]
    signs = [(a > 1) == (b > 1) for a, b in ran if a and b]
    return sum(signs), len(signs)
