"""nccl-tests (and rccl-tests), text and JSON (-J): rows of the table of collectives.

A row is the out-of-place time. What is checked, because no fit could notice: time and algorithm
bandwidth state the same (microseconds and GB/s); size, count and type state the ranks that take
part. `size` already follows the tables' convention for `bytes`: the largest of a rank's buffers
(nccl-tests src/common.cu prints max(sendBytes, expectedBytes)), which is the output of all_gather,
the input of reduce_scatter, the whole send buffer of alltoall. Results counted as wrong give rows
of quality `wrong_results`, which a fit leaves out. Host names and process numbers are used to count
nodes and forgotten; the environment that the JSON embeds is dropped while it is read.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

from moesim.calibrate.importers.facts import Facts, Machines, machines
from moesim.calibrate.importers.nccl_json import json_runs
from moesim.calibrate.importers.nccl_run import Line, Run, count_ranks
from moesim.calibrate.importers.nccl_text import text_runs
from moesim.calibrate.importers.rows import Imported, Row
from moesim.errors import CalibrationError

_TEXT = re.compile(r"^.{0,40}#\s+size\s+count\s+type\b|# nThread \d+ nGpus \d+", re.MULTILINE)

NAMES = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "alltoall",
    "sendrecv": "send_recv",
    "broadcast": "broadcast",
}
"""Test programs that the tables have a word for."""

_SHARED_OUT = ("all_gather", "reduce_scatter", "alltoall", "gather", "scatter", "hypercube")
"""Where `count` is one rank's share: size = count x ranks x bytes of the type."""

_TYPES = {
    "int8": ("int8", 1), "uint8": ("int8", 1), "int32": ("int32", 4), "uint32": ("int32", 4),
    "int64": ("int64", 8), "uint64": ("int64", 8), "half": ("fp16", 2), "float": ("fp32", 4),
    "double": ("fp64", 8), "bfloat16": ("bf16", 2), "f8e4m3": ("fp8", 1), "f8e5m2": ("fp8", 1),
    "fp8_e4m3": ("fp8", 1), "fp8_e5m2": ("fp8", 1),
}  # fmt: skip
"""Number types of nccl-tests: the tables' word, bytes of an element."""

_COARSE = 0.005
"""Rounding of a time, as a fraction, from which the bandwidth states it better."""

_TOLERANCE = 0.01
"""Between time and algorithm bandwidth, beyond the rounding of both."""


def is_nccl_tests(text: str) -> bool:
    """Tell a log or a JSON file of nccl-tests."""
    if text.lstrip()[:1] == "{":
        return '"out_of_place"' in text
    return _TEXT.search(text) is not None


def read_nccl_tests(text: str, origin: str, facts: Facts) -> Imported:
    """Return the collectives of a log or JSON file; CalibrationError names the place of a fault."""
    is_json = text.lstrip()[:1] == "{"
    runs = json_runs(text, origin) if is_json else text_runs(text, origin)
    left_out: Counter[str] = Counter()
    rows = [row for run in runs for row in _rows(run, origin, facts, left_out)]
    return Imported(tables={"collectives": rows}, left_out=left_out)


def _rows(run: Run, origin: str, facts: Facts, left_out: Counter[str]) -> Iterator[Row]:
    reasons = [_reason(line) for line in run.lines]
    left_out.update(reason for reason in reasons if reason)
    lines = [line for line, reason in zip(run.lines, reasons, strict=True) if not reason]
    if not lines:
        return
    name = run.collective or _inferred(lines) or _by_file(origin)
    if name not in NAMES:
        left_out[f"{name}: no cost model for it"] += len(lines)
        return
    count_ranks(run, origin)
    ranks = _ranks(run, lines, name, origin, facts)
    if ranks == 1:
        left_out["a single rank sends nothing"] += len(lines)
        return
    nodes = facts.num_nodes or run.num_nodes
    if nodes is None:
        raise CalibrationError(f"{origin}: the header lists no hosts: --num-nodes")
    where = machines(facts, ranks, nodes, origin)
    for line in lines:
        _check(line, name, ranks)
        yield _row(line, run, NAMES[name], facts, where)


def _reason(line: Line) -> str:
    """Return why a line gives no row whatever it measured, or an empty text."""
    if line.type not in _TYPES:
        return "number type that the tables have no word for"
    if line.size == 0 or line.count == 0:
        return "0 bytes"
    return "" if line.time.value is not None and line.time.value > 0 else "no time"


def _ranks(run: Run, lines: list[Line], name: str, origin: str, facts: Facts) -> int:
    """Return the ranks of a communicator: as told, as listed in the header, or from a count."""
    stated = facts.num_gpus or run.num_gpus
    if stated is not None:
        return stated
    if name in _SHARED_OUT:
        return max(1, lines[0].size // (lines[0].count * _TYPES[lines[0].type][1]))
    raise CalibrationError(f"{origin}: the header lists no ranks: --num-gpus")


def _check(line: Line, name: str, ranks: int) -> None:
    """Raise CalibrationError where a line contradicts itself or the number of ranks."""
    per_count = _TYPES[line.type][1] * (ranks if name in _SHARED_OUT else 1)
    if line.size != line.count * per_count:
        raise CalibrationError(
            f"{line.place}: size is {line.size:,} bytes, but count, type and {ranks} ranks of "
            f"{name} make {line.count * per_count:,}: is it another collective, or another "
            "number of ranks (--num-gpus)?"
        )
    if line.time.value is None or line.rate.value is None:
        return
    rate, stated = line.size / line.time.value / 1e3, line.rate.value
    slack = _TOLERANCE + line.time.rounding / line.time.value
    if abs(stated - rate) > line.rate.rounding * (1 + _TOLERANCE) + slack * max(rate, stated):
        raise CalibrationError(
            f"{line.place}: size over time is {rate:.4g} GB/s, but algbw says {stated:.4g}: times "
            "must be in microseconds"
        )


def _time_us(line: Line) -> tuple[float | None, str]:
    """Return the time and where it is from: a wide one is printed with two digits, as 1.2e+05."""
    time, rate = line.time, line.rate
    coarse = time.value is not None and time.rounding > _COARSE * time.value
    if coarse and rate.value is not None and rate.rounding < _COARSE * rate.value:
        return float(f"{line.size / rate.value / 1e3:.6g}"), "derived_from_busbw"
    return time.value, "measured"


def _row(line: Line, run: Run, collective: str, facts: Facts, where: Machines) -> Row:
    quality = "unchecked" if line.wrong is None else ("wrong_results" if line.wrong else "ok")
    if run.groups > 1:
        quality = "concurrent_groups"  # they share the links: not the time of one alone
    time_us, origin = _time_us(line)
    return {
        "hardware": facts.hardware,
        "collective": collective,
        "library": facts.library or "nccl",
        "library_version": facts.library_version or run.version or "unknown",
        "algorithm": "auto",
        "dtype": _TYPES[line.type][0],
        "num_gpus": where.num_gpus,
        "num_nodes": where.num_nodes,
        "gpus_per_node": where.gpus_per_node,
        "interconnect": facts.interconnect,
        "network": where.network,
        "bytes": line.size,
        "time_us": time_us,
        "timing": "nccl-tests out-of-place",
        "time_origin": origin,
        "quality": quality,
        "source": "nccl-tests",
    }


def _inferred(lines: list[Line]) -> str:
    """Return the test program that prints such columns, or nothing where several do.

    Older versions do not name themselves. What tells: a reduction, a root, whether `count` is one
    rank's share; and alltoall alone checks its results out of place but not in place.
    """
    shared = all(line.size > line.count * _TYPES[line.type][1] for line in lines)
    reduction, root = lines[0].redop != "none", lines[0].root >= 0
    if reduction:
        return "reduce" if root else ("reduce_scatter" if shared else "all_reduce")
    if root:
        return "gather" if shared else "broadcast"
    if not shared:
        return "sendrecv"
    if any(line.wrong_in_place is not None for line in lines):
        return "all_gather"
    return "alltoall" if all(line.wrong is not None for line in lines) else ""


def _by_file(origin: str) -> str:
    """Return all_gather or alltoall, whichever the file's name says."""
    name = PurePath(origin).name
    found = [word for word in ("all_gather", "alltoall") if word in name]
    if len(found) == 1:
        return found[0]
    raise CalibrationError(
        f"{origin}: all_gather or alltoall? Neither the log nor the file's name says it: rename "
        "it, such as alltoall_perf.log"
    )
