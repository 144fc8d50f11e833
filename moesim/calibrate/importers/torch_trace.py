"""Traces of torch.profiler (Chrome trace JSON): kernels by class, and rows where shapes stand.

A kernel belongs to the operator with its `External id`; where it carries none, to that of the
launch with its `correlation`. The time of an operator is that of all kernels it started itself, so
it leaves out the host. Kernels replayed from a CUDA graph, or started by operators that
torch_operators does not know, have no shapes: they are counted by class.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moesim.calibrate.importers.facts import Facts
from moesim.calibrate.importers.kernel_classes import kernel_class
from moesim.calibrate.importers.rows import ClassTime, Imported, Row
from moesim.calibrate.importers.source import load_json
from moesim.calibrate.importers.torch_collectives import Job, collective
from moesim.calibrate.importers.torch_operators import OPERATORS, shaped
from moesim.calibrate.importers.values import count, number
from moesim.errors import CalibrationError

_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver", "runtime", "hip_runtime")
_IDS = ("External id", "external id")

_WAITS = (
    "times of collectives are those of one rank and hold its wait for the others: better have "
    "nccl-tests"
)


@dataclass(slots=True)
class _Kernel:
    """One run of a kernel on the device."""

    name: str
    group: str
    duration_us: float
    args: dict[str, Any]
    used: bool = False


@dataclass(slots=True)
class _Trace:
    """The events of a trace that count."""

    kernels: list[_Kernel] = field(default_factory=list)
    operators: dict[int, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    launches: dict[int, int] = field(default_factory=dict)
    """External id by correlation."""


def is_torch_trace(text: str) -> bool:
    """Tell a Chrome trace that a profiler wrote."""
    return text.lstrip()[:1] in ("{", "[") and '"ph"' in text and '"cat"' in text


def read_torch_trace(text: str, origin: str, facts: Facts) -> Imported:
    """Return what a trace measured; CalibrationError with the event that cannot be meant."""
    document = load_json(text, origin)
    trace = _trace(_events(document, origin), origin)
    tables: dict[str, list[Row]] = {}
    left_out: Counter[str] = Counter()
    for table, row, reason in (
        *_by_operator(trace, facts),
        *_collectives(trace, document, facts, origin),
    ):
        if reason:
            left_out[reason] += 1
        else:
            tables.setdefault(table, []).append(row)
    notes = (_WAITS,) if "collectives" in tables else ()
    return Imported(tables=tables, left_out=left_out, notes=notes, classes=_classes(trace))


def _events(document: Any, origin: str) -> list[Any]:
    events = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(events, list):
        raise CalibrationError(f"{origin}: no list traceEvents")
    return events


def _trace(events: list[Any], origin: str) -> _Trace:
    trace = _Trace()
    for place, event in enumerate(events):
        if not isinstance(event, dict) or event.get("ph") != "X":
            continue
        category, args = str(event.get("cat", "")).lower(), event.get("args")
        args = args if isinstance(args, dict) else {}
        if category in _ON_DEVICE:
            duration = number(event.get("dur"))
            if duration is None or duration < 0:
                message = "dur is not a number of microseconds"
                raise CalibrationError(f"{origin}: traceEvents[{place}]: {message}")
            name = str(event.get("name", ""))
            trace.kernels.append(_Kernel(name, kernel_class(name, category), duration, args))
        elif category == "cpu_op" and (known := _id(args)) is not None:
            trace.operators.setdefault(known, []).append((str(event.get("name")), args))
        elif category in _LAUNCHES:
            known, launch = _id(args), count(args.get("correlation"))
            if known is not None and launch is not None:
                trace.launches[launch] = known
    return trace


def _id(args: dict[str, Any]) -> int | None:
    found = next((count(args[name]) for name in _IDS if name in args), None)
    return found or None  # 0 is no operator's


def _by_operator(trace: _Trace, facts: Facts) -> Iterator[tuple[str, Row, str]]:
    """Yield table, row and the reason why there is none, for each operator with shapes."""
    started: dict[int, list[_Kernel]] = {}
    for kernel in trace.kernels:
        launch = count(kernel.args.get("correlation"))
        known = _id(kernel.args) or trace.launches.get(launch or 0)
        if known is not None:
            started.setdefault(known, []).append(kernel)
    for known, kernels in started.items():
        operators = trace.operators.get(known, [])
        if len(operators) != 1 or operators[0][0] not in OPERATORS:
            if len(operators) > 1:
                yield "", {}, "operators that share an external id"
            continue
        yield _operator(*operators[0], kernels, facts)


def _operator(
    name: str, args: dict[str, Any], kernels: list[_Kernel], facts: Facts
) -> tuple[str, Row, str]:
    total_us = sum(kernel.duration_us for kernel in kernels)
    found = shaped(name, args, " ".join(kernel.name for kernel in kernels).lower())
    if found.reason or total_us <= 0:
        return "", {}, found.reason or "kernels of no duration"
    for kernel in kernels:
        kernel.used = True
    about: Row = {
        "hardware": facts.hardware,
        "framework": facts.library or "pytorch",
        "framework_version": facts.library_version or "unknown",
    }
    return found.table, {
        **about,
        **found.row,
        "timing": "kernel_profiler",
        "time_us": total_us,
        "quality": "ok",
        "source": "torch-profiler",
    }, ""  # fmt: skip


def _collectives(
    trace: _Trace, document: Any, facts: Facts, origin: str
) -> Iterator[tuple[str, Row, str]]:
    job = _job(document, facts, origin)
    for kernel in trace.kernels:
        if kernel.group != "collective" or "nccl" not in kernel.name.lower():
            continue
        row, reason = collective(kernel.args, job)
        if row and kernel.duration_us > 0:
            kernel.used = True
            yield "collectives", {**row, "time_us": kernel.duration_us}, ""
        else:
            yield "", {}, reason or "kernels of no duration"


def _job(document: Any, facts: Facts, origin: str) -> Job:
    about = document.get("distributedInfo") if isinstance(document, dict) else None
    about = about if isinstance(about, dict) else {}
    version = str(about.get("nccl_version", ""))
    known = version if version.replace(".", "").isdigit() and len(version) < 20 else ""
    return Job(facts, origin, count(about.get("world_size")), known)


def _classes(trace: _Trace) -> tuple[ClassTime, ...]:
    """Return the kernels by class, the class that took longest first."""
    groups: dict[str, list[_Kernel]] = {}
    for kernel in trace.kernels:
        groups.setdefault(kernel.group, []).append(kernel)
    found = [
        ClassTime(name, len(kernels), sum(k.duration_us for k in kernels),
                  sum(k.used for k in kernels))
        for name, kernels in groups.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: (-one.total_us, one.name)))
