"""Writes the requests of a run as a trace that gives the same run again."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from moesim.sim.serving.requests import NEVER, Requests
from moesim.study.serving.traces.rows import BLOCK


def write_trace(asked: Requests, path: Path) -> None:
    """Write all requests that arrived as Mooncake JSON lines, in the order of their numbers.

    Arrivals are in milliseconds with as many digits as they have picoseconds, so that a replay
    gives identical times: of closed loops and conversations too, whose arrivals are those of the
    run. Keys that Mooncake does not have stand there only where they say something: block_size
    (other than 512), session_id and turn, max_tokens (where an engine knows another limit than the
    output).
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in _records(asked):
            file.write(record + "\n")


def _records(asked: Requests) -> Iterator[str]:
    for n in range(len(asked)):
        if asked.arrival[n] == NEVER:
            continue
        record: dict[str, Any] = {
            "input_length": asked.prompt[n],
            "output_length": asked.output[n],
        }
        if asked.prefix is not None:
            record["hash_ids"] = list(asked.prefix[n])
            if asked.prefix_block != BLOCK:
                record["block_size"] = asked.prefix_block
        if asked.session is not None:
            record["session_id"] = str(asked.session[n])
            record["turn"] = 0 if asked.turn is None else asked.turn[n]
        if asked.allowed is not asked.output:
            record["max_tokens"] = asked.allowed[n]
        yield f'{{"timestamp": {_ms(asked.arrival[n])}, {json.dumps(record)[1:]}'


def _ms(ps: int) -> str:
    """Return whole picoseconds in milliseconds, exactly: 9 decimals at most, none where whole."""
    text = f"{Decimal(ps).scaleb(-9):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
