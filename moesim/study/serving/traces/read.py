"""Reads a file of requests, in whatever known format it is."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from moesim.errors import Problem, ScenarioError
from moesim.study.serving.traces.objects import bench, objects, parsed
from moesim.study.serving.traces.rows import Lines, RowError, Rows, whole
from moesim.study.serving.traces.tables import table

KNOWN = (
    "Azure LLM inference CSV (TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT CSV (Timestamp, "
    "Request tokens, Response tokens), CSV of lengths (num_prefill_tokens, num_decode_tokens), "
    "Mooncake JSON lines (timestamp, input_length, output_length, hash_ids), LLMServingSim JSON "
    "lines (input_toks, output_toks, arrival_time_ns), AIPerf profile_export.jsonl (metadata, "
    "metrics), detailed JSON of vllm bench serve (input_lens, output_lens, start_times)"
)


def read_rows(path: Path) -> Rows:
    """Return the requests in the file `path`; its format is told by what is in it.

    Raises ScenarioError with file and line where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            rows = _rows(_lines(file))
    except OSError as error:
        what = "is no file" if path.is_dir() else error.strerror or "cannot be read"
        raise ScenarioError([Problem("", f"{path}: {what}")]) from None
    except RowError as error:
        raise ScenarioError([Problem("", str(error), str(path), error.line, 1)]) from None
    if not rows.prompt:
        message = f"has no request with tokens on both sides ({rows.left_out} were left out)"
        raise ScenarioError([Problem("", message, str(path), 1, 1)])
    return rows


def read_lengths(path: Path, side: str) -> list[int]:
    """Return the lengths in a file: of a trace the `prompt` or `output`, or one a line.

    Raises ScenarioError with file and line where it cannot be read.
    """
    rows = read_rows(path)
    return rows.prompt if side == "prompt" else rows.output


def _lines(file: Iterator[bytes]) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(file, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise RowError(number, "is not UTF-8 text") from None
        if line:
            yield number, line


def _rows(lines: Iterator[tuple[int, str]]) -> Rows:
    number, first = next(lines, (1, ""))
    if not first:
        raise RowError(1, "the file is empty")
    if first.isascii() and first.isdigit():
        return _plain(chain([(number, first)], lines))
    if first[0] == "[":
        message = "a JSON list is no trace: conversations as text have no lengths in tokens"
        raise RowError(number, f"{message}; known are: {KNOWN}")
    rows = _json(lines, number, first) if first[0] == "{" else table(lines, first)
    if rows is None:
        raise RowError(number, f"no known format of requests; known are: {KNOWN}")
    return rows


def _plain(lines: Lines) -> Rows:
    """Return one length a line, which stands for prompts and for outputs."""
    rows = Rows()
    for number, line in lines:
        try:
            tokens = whole(line, "a length")
        except ValueError as error:
            raise RowError(number, str(error)) from None
        rows.lengths(tokens, tokens)
    return rows


def _json(lines: Iterator[tuple[int, str]], number: int, first: str) -> Rows | None:
    """Return JSON lines, or one JSON object over one line or many."""
    try:
        record = parsed(first)
    except ValueError as error:
        if not _is_open(first):
            raise RowError(number, str(error)) from None
        return _bench(_whole_file(lines, number, first), number)
    if "input_lens" in record or "total_input_tokens" in record:
        more = next(lines, None)
        if more is not None:
            raise RowError(more[0], "a second result begins here; a trace is one of them")
        return _bench(record, number)
    return objects(chain([(number, first)], lines), record)


def _is_open(text: str) -> bool:
    """Return whether JSON goes on behind this line, rather than being wrong in it."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except (RecursionError, ValueError):
        return False
    return False


def _whole_file(lines: Iterator[tuple[int, str]], number: int, first: str) -> dict[str, object]:
    kept = [(number, first), *lines]
    try:
        return parsed("\n".join(line for _, line in kept))
    except ValueError as error:
        cause = error.__context__
        place = cause.lineno - 1 if isinstance(cause, json.JSONDecodeError) else 0
        raise RowError(kept[min(place, len(kept) - 1)][0], str(error)) from None


def _bench(record: dict[str, object], number: int) -> Rows | None:
    if "input_lens" not in record:
        if "total_input_tokens" not in record:
            return None
        message = "has no input_lens: save the result of vllm bench with --save-detailed"
        raise RowError(number, message)
    try:
        return bench(record)
    except ValueError as error:
        raise RowError(number, str(error)) from None
