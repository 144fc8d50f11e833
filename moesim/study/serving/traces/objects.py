"""Traces in JSON: Mooncake, LLMServingSim, AIPerf and `vllm bench serve`."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from moesim.study.serving.traces.rows import Lines, RowError, Rows, picoseconds, shown, whole

Take = Callable[[dict[str, Any]], None]

_ID = 2**62


def objects(lines: Lines, first: dict[str, Any]) -> Rows | None:
    """Return the rows of the JSON lines that begin with `first`; None where no format has it.

    Mooncake: kvcache-ai/Mooncake, FAST25-release/traces (timestamp in ms, hash_ids of blocks of 512
    tokens). LLMServingSim: casys-kaist/LLMServingSim, workloads/*.jsonl. AIPerf:
    ai-dynamo/aiperf, docs/tutorials/working-with-profile-exports.md; requests of the warm-up and
    failed ones are left out.
    """
    rows = Rows()
    if {"input_length", "output_length"} <= first.keys():
        take = _mooncake(rows)
    elif {"input_toks", "output_toks"} <= first.keys():
        take = _serving_sim(rows)
    elif {"metadata", "metrics"} <= first.keys():
        take = _aiperf(rows)
    else:
        return None
    for number, line in lines:
        try:
            take(parsed(line))
        except ValueError as error:
            raise RowError(number, str(error)) from None
    return rows


def parsed(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`, fractions exact.

    Raises ValueError in one line where it is none.
    """
    try:
        data = json.loads(text, parse_float=Decimal, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(data, dict):
        raise ValueError(f"is not a JSON object: {shown(data)}")
    return data


def _no_number(text: str) -> None:
    raise ValueError(f"has {text}, which is no number")


def _get(record: dict[str, Any], key: str) -> Any:
    if key not in record:
        raise ValueError(f"has no {key}")
    return record[key]


def _mooncake(rows: Rows) -> Take:
    def take(record: dict[str, Any]) -> None:
        prompt = whole(_get(record, "input_length"), "input_length")
        output = whole(_get(record, "output_length"), "output_length")
        time = None
        if "timestamp" in record:
            time = picoseconds(record["timestamp"], "timestamp", -3)
        block = whole(record.get("block_size", rows.block), "block_size")
        if rows.prompt and block != rows.block:
            raise ValueError(f"block_size is {block}, above it is {rows.block}")
        rows.block = max(1, block)
        ids = _ids(record, -(-(prompt + output) // rows.block))
        if rows.lengths(prompt, output):
            _extend(rows, record, time, ids)

    return take


def _ids(record: dict[str, Any], most: int) -> tuple[int, ...] | None:
    ids = record.get("hash_ids")
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(one) is int and 0 <= one < _ID for one in ids):
        raise ValueError("hash_ids is not a list of whole numbers from 0")
    if len(ids) > most:
        raise ValueError(f"has {len(ids)} hash_ids, its tokens make {most} blocks at most")
    return tuple(ids)


def _extend(
    rows: Rows, record: dict[str, Any], time: int | None, ids: tuple[int, ...] | None
) -> None:
    """Add what only some files have; all requests of a file have the same of it."""
    if time is not None:
        rows.at.append(time)
    if ids is not None:
        rows.prefix.append(ids)
    if "session_id" in record:
        rows.session.append(str(record["session_id"]))
        rows.turn.append(whole(record.get("turn", 0), "turn"))
    if "max_tokens" in record:
        rows.allowed.append(whole(record["max_tokens"], "max_tokens"))
    for name in ("at", "prefix", "session", "allowed"):
        if len(getattr(rows, name)) not in (0, len(rows.prompt)):
            key = {"at": "timestamp", "prefix": "hash_ids", "session": "session_id"}
            raise ValueError(f"only some lines have {key.get(name, 'max_tokens')}")


def _serving_sim(rows: Rows) -> Take:
    def take(record: dict[str, Any]) -> None:
        prompt = whole(_get(record, "input_toks"), "input_toks")
        output = whole(_get(record, "output_toks"), "output_toks")
        time = picoseconds(_get(record, "arrival_time_ns"), "arrival_time_ns", -9)
        if rows.lengths(prompt, output):
            rows.at.append(time)

    return take


def _aiperf(rows: Rows) -> Take:
    rows.counts_from_start = False

    def take(record: dict[str, Any]) -> None:
        about, measured = _get(record, "metadata"), _get(record, "metrics")
        if not isinstance(about, dict) or not isinstance(measured, dict):
            raise ValueError("metadata and metrics must be objects")
        failed = record.get("error") is not None or about.get("was_cancelled") is True
        if failed or about.get("benchmark_phase") == "warmup":
            rows.left_out += 1
            return
        time = picoseconds(_get(about, "request_start_ns"), "request_start_ns", -9)
        if rows.lengths(
            _measure(measured, "input_sequence_length"),
            _measure(measured, "output_sequence_length"),
        ):
            rows.at.append(time)

    return take


def _measure(measured: dict[str, Any], name: str) -> int:
    found = _get(measured, name)
    return whole(found.get("value") if isinstance(found, dict) else found, name)


def bench(record: dict[str, Any]) -> Rows:
    """Return the rows of a result of `vllm bench serve --save-detailed`; its lists are in seconds.

    Requests that failed (no output, or an error) are left out. Source: vllm 0.33.0,
    benchmarks/serve.py.
    """
    rows = Rows(counts_from_start=False)
    prompts, outputs = _list(record, "input_lens"), _list(record, "output_lens")
    times = _list(record, "start_times") if record.get("start_times") else None
    errors = _list(record, "errors") if record.get("errors") else [""] * len(prompts)
    for name, column in (("output_lens", outputs), ("start_times", times), ("errors", errors)):
        if column is not None and len(column) != len(prompts):
            raise ValueError(f"{name} has {len(column)} items, input_lens {len(prompts)}")
    for n, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        sizes = whole(prompt, f"input_lens[{n}]"), whole(output, f"output_lens[{n}]")
        at = None if times is None else picoseconds(times[n], f"start_times[{n}]", 0)
        if errors[n]:
            rows.left_out += 1
        elif rows.lengths(*sizes) and at is not None:
            rows.at.append(at)
    return rows


def _list(record: dict[str, Any], key: str) -> list[Any]:
    found = _get(record, key)
    if not isinstance(found, list):
        raise ValueError(f"{key} is not a list")
    return found
