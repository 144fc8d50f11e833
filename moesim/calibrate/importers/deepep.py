"""DeepEP's own tests (test_intranode, test_internode, test_low_latency): rows of exchanges.

High throughput: the lines `[tuning] Best dispatch …` and `Best combine …` count, each the fastest
of the chunk sizes that the lines above it tried. Where such a line states no time, only a
bandwidth, the row has no time and a fit leaves it out: the bandwidth counts bytes that a random
draw decides, so no time is made of it. In `A + B us` A is the notification before the exchange
(column notify_us), B the exchange.

Low latency: one line a rank, `Dispatch bandwidth: …, avg_t=… us | Combine bandwidth: …`; the row is
the median over ranks. Bandwidth times time must come to the bytes that the shape sends (rows of
hidden + 4 hidden/128 + 16 bytes in fp8, 2 hidden in bf16; test_low_latency.py), so that a shape
that the log leaves unsaid cannot be wrong by much.

The logs do not state ranks, nodes or the number of experts. What is not told counts as the default
of the test program and is noted. Not read: DeepEP's newer tests of elastic buffers, combine in
logfmt, the times of send and receive apart (return_recv_hook).
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from moesim.calibrate.importers.facts import Facts, Machines, machines
from moesim.calibrate.importers.rows import Imported, Row
from moesim.calibrate.importers.source import lines_of, problem
from moesim.errors import CalibrationError

_NUMBER = r"(\d{1,12}(?:\.\d{1,9})?)"
_ANY = re.compile(r"\[tuning\] |\[rank \d{1,6}\] Dispatch")
_CONFIG = re.compile(r"\[config\] (.*)")
_SETTING = re.compile(r"(\w{1,40})=(\d{1,12})\b")
_BEST = re.compile(
    r"\[tuning\] Best (dispatch|combine)(?: \((FP8|BF16)\))?: SMs (\d{1,4}), NVL chunk \d{1,4}"
    r"(?:, (RDMA) chunk \d{1,4})?[:,] (.*)"
)
_TIME = re.compile(rf"(?:{_NUMBER} \+ )?(?:(?:avg_)?t[:=] ?)?{_NUMBER} us")
_RATE = re.compile(rf"{_NUMBER} GB/s \((RDMA|NVL)\)")
_RANK = re.compile(r"\[rank (\d{1,6})\] ")
_HALF = rf" bandwidth: {_NUMBER} GB/s, avg_t={_NUMBER} us"
_BOTH = re.compile(rf"Dispatch{_HALF} \| Combine{_HALF}")
_APART = re.compile(r"Dispatch send/recv time: [\d.+ ]+us \| Combine send/recv time: [\d.+ ]+us")
_SUM = re.compile(r"Dispatch \+ combine bandwidth: ")

_COLUMNS = {"num_tokens": "tokens_per_rank", "hidden": "hidden_size", "num_topk": "top_k",
            "num_experts": "num_experts", "num_topk_groups": "max_nodes_per_token"}  # fmt: skip
"""What a [config] line calls the columns."""

_DEFAULTS = {
    "high_throughput": {"num_experts": 256},
    "low_latency": {"tokens_per_rank": 128, "hidden_size": 7168, "top_k": 8, "num_experts": 288},
}
"""Of the arguments of the test programs, for what their output leaves unsaid."""

_GPUS_PER_NODE = 8
"""The default of --num-processes in all three tests."""

_SHAPE_TOLERANCE = 0.05
"""The test masks ten assignments at random, and the figures printed are rounded."""


@dataclass(slots=True)
class _Log:
    """What has been read of a log so far."""

    origin: str
    facts: Facts
    config: dict[str, int] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)


def is_deepep(text: str) -> bool:
    """Tell a log of DeepEP's tests."""
    return _ANY.search(text) is not None


def read_deepep(text: str, origin: str, facts: Facts) -> Imported:
    """Return the exchanges of a log; CalibrationError names the line that is not understood."""
    log = _Log(origin, facts)
    lines = lines_of(text)
    ranks = [int(found) for line in lines for found in _RANK.findall(line)]
    for number, line in enumerate(lines, start=1):
        if config := _CONFIG.search(line):
            found = {name: int(value) for name, value in _SETTING.findall(config[1])}
            log.config = {
                _COLUMNS[name]: value for name, value in found.items() if name in _COLUMNS
            }
        elif "[tuning]" in line:
            _tuning(line, number, log)
        elif _RANK.search(line):
            _low_latency(line, number, log, max(ranks) + 1)
    tables = {"moe_alltoall": log.rows}
    return Imported(tables=tables, left_out=log.left_out, notes=tuple(log.notes))


def _tuning(line: str, number: int, log: _Log) -> None:
    if "Best" not in line:
        log.left_out["tuning step: the best chunk size counts"] += 1
        return
    best = _BEST.search(line)
    if best is None:
        raise problem(log.origin, number, "not a result of DeepEP's test_intranode or _internode")
    phase, dtype, sms, between, rest = best.groups()
    if phase == "dispatch" and dtype is None:
        raise problem(log.origin, number, "does not say whether it dispatched FP8 or BF16")
    measured = _measured(rest, (log.origin, number))
    if measured["time_us"] is None:
        log.notes["some results state no time, only a bandwidth: a fit leaves them out"] = None
    where = _machines(log, number, across=between is not None)
    shape = _shape("high_throughput", where, log, number)
    payload = "fp8_block128" if dtype == "FP8" else "bf16"
    about = {"mode": "high_throughput", "phase": phase, "payload_dtype": payload}
    log.rows.append(_row(log, where, {**about, **shape, "num_sms": int(sms), **measured}))


def _measured(rest: str, place: tuple[str, int]) -> Row:
    """Return times and bandwidth of what follows the settings; nothing else may stand there."""
    times, rates = _TIME.findall(rest), _RATE.findall(rest)
    if _TIME.sub("", _RATE.sub("", rest)).strip(" ,:") or len(times) > 1 or len(rates) > 2:
        raise problem(*place, "expected times in us, GB/s (RDMA) and GB/s (NVL) and nothing else")
    if not times and not rates:
        raise problem(*place, "neither a time nor a bandwidth: the line is cut")
    notify, time = times[0] if times else ("", "")
    by_link = {link: float(rate) for rate, link in rates}
    link = "RDMA" if "RDMA" in by_link else "NVL"
    if time and float(time) <= 0:
        raise problem(*place, "a time of 0")
    return {
        "time_us": float(time) if time else None,
        "notify_us": float(notify) if notify else None,
        "reported_bandwidth_GB_per_s": by_link.get(link),
        "bandwidth_kind": {"RDMA": "rdma_logical", "NVL": "nvlink"}[link] if rates else None,
        "time_origin": "measured" if time else "bandwidth_only",
    }


def _low_latency(line: str, number: int, log: _Log, ranks: int) -> None:
    """Take the results of one rank, or of several whose output shares a line."""
    for part in _RANK.split(line)[2::2]:
        if _SUM.match(part):
            log.left_out["dispatch and combine in one time"] += 1
        elif _APART.match(part):
            log.left_out["send and receive apart (return_recv_hook)"] += 1
        elif part.startswith("Dispatch"):
            found = _BOTH.match(part)
            if found is None:
                raise problem(log.origin, number, "not a result of DeepEP's test_low_latency")
            _take_rank(found, number, log, ranks)


def _take_rank(found: re.Match[str], number: int, log: _Log, ranks: int) -> None:
    where = _machines(log, number, across=False, ranks=ranks)
    shape = _shape("low_latency", where, log, number)
    copies, hidden = shape["tokens_per_rank"] * shape["top_k"], shape["hidden_size"]
    rows = {"dispatch": ("fp8_block128", hidden + 4 * hidden / 128 + 16),
            "combine": ("bf16", 2.0 * hidden)}  # fmt: skip
    figures = [float(text) for text in found.groups()]
    for place, (phase, (payload, row_bytes)) in enumerate(rows.items()):
        rate, time_us = figures[2 * place : 2 * place + 2]
        sent, moved = copies * row_bytes, rate * time_us * 1e3
        if abs(moved / sent - 1) > _SHAPE_TOLERANCE:
            raise problem(
                log.origin, number,
                f"{phase} moved {moved:,.0f} bytes, {shape['tokens_per_rank']} tokens to "
                f"{shape['top_k']} experts at hidden size {hidden} are {sent:,.0f} in {payload}: "
                "give the shape that was run, --set tokens_per_rank=…, hidden_size=…, top_k=…",
            )  # fmt: skip
        about = {"mode": "low_latency", "phase": phase, "payload_dtype": payload}
        measured = {"time_us": time_us, "notify_us": None, "reported_bandwidth_GB_per_s": rate,
                    "bandwidth_kind": "recv_payload", "time_origin": "measured"}  # fmt: skip
        log.rows.append(_row(log, where, {**about, **shape, "num_sms": None, **measured}))


def _machines(log: _Log, number: int, *, across: bool, ranks: int = 0) -> Machines:
    """Return the devices: as told, as the ranks that print say, or eight a node."""
    nodes, gpus = log.facts.num_nodes, log.facts.num_gpus
    if nodes is None and (across or max(ranks, gpus or 0) > _GPUS_PER_NODE):
        raise problem(log.origin, number, "the log does not say how many nodes: --num-nodes")
    nodes = nodes or 1
    if across and nodes == 1:
        raise problem(log.origin, number, "a test between nodes: --num-nodes is at least 2")
    if gpus is None and (ranks == 0 or nodes > 1):  # one node's log has that node's ranks
        gpus = _GPUS_PER_NODE * nodes
        _note(log, f"{gpus} GPUs, {_GPUS_PER_NODE} a node", "--num-gpus")
    found = machines(log.facts, gpus or ranks, nodes, f"{log.origin}:{number}")
    if ranks > found.num_gpus:
        message = f"rank {ranks - 1} among {found.num_gpus} GPUs: --num-gpus"
        raise problem(log.origin, number, message)
    return found


def _shape(mode: str, where: Machines, log: _Log, number: int) -> dict[str, int]:
    """Return the shape: as told, as the [config] line says, or the defaults of the test."""
    known = {**log.config, **log.facts.shape}
    for name, value in _DEFAULTS[mode].items():
        if name not in known:
            known[name] = value
            _note(log, f"{name} {value}", f"--set {name}=…")
    known.setdefault("max_nodes_per_token", where.num_nodes)
    for name in _COLUMNS.values():
        if known.get(name, 0) < 1:
            message = f"no {name} in a [config] line above: --set {name}=…"
            raise problem(log.origin, number, message)
    known["max_nodes_per_token"] = min(known["max_nodes_per_token"], where.num_nodes)
    if known["top_k"] > known["num_experts"]:
        message = f"top_k {known['top_k']} of {known['num_experts']} experts"
        raise CalibrationError(f"{log.origin}:{number}: {message}")
    return {name: known[name] for name in _COLUMNS.values()}


def _note(log: _Log, what: str, option: str) -> None:
    log.notes[f"{what}: the default of DeepEP's test, the log does not say it ({option})"] = None


def _row(log: _Log, where: Machines, measured: Row) -> Row:
    facts = log.facts
    return {
        "hardware": facts.hardware,
        "library": facts.library or "deepep",
        "library_version": facts.library_version or "unknown",
        "algorithm": None,
        "ep_size": where.num_gpus,
        "num_nodes": where.num_nodes,
        "gpus_per_node": where.gpus_per_node,
        "network": where.network,
        **measured,
        "quality": "ok",
        "source": "deepep-tests",
    }
