"""What happens over time: who runs and waits, how full the cache is, what came in and out."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.log import Log
from moesim.sim.serving.requests import NEVER, Requests
from moesim.study.serving.gaps import Ints, columns
from moesim.study.serving.simulate import ServingOutcome

MOST = 2000
"""Points of a replica's series at most."""

MOST_OF_ALL = 60_000
"""Points of all replicas together at most, as far as that leaves each some."""


def series(outcome: ServingOutcome) -> list[dict[str, Any]]:
    """Return the state of each replica at the ends of its iterations, thinned where they are many.

    Counters are those of the replica from the beginning on; prefix hits are of all replicas.
    """
    hits = _prefix_hits(outcome.requests)
    blocks = outcome.run.rules.blocks
    most = min(MOST, max(60, MOST_OF_ALL // max(1, len(outcome.logs))))
    return [
        row
        for number, log in enumerate(outcome.logs)
        for row in _of_log(number, log, blocks, hits, most)
    ]


def _of_log(
    number: int, log: Log, blocks: int, hits: tuple[Ints, Ints], most: int
) -> Iterator[dict[str, Any]]:
    rows = columns(log)
    kept = _thinned(rows, most)
    ends = rows["ends"]
    prompts = np.cumsum(rows["prompt_tokens"])
    outputs = np.cumsum(rows["yielded"] * rows["sequences"])
    evictions = np.searchsorted(np.array(log.evictions, dtype=np.int64), ends, side="right")
    times, tokens = hits
    found = np.searchsorted(times, ends, side="right")
    for row in kept:
        yield {
            "time_s": float(ends[row]) / PS_PER_S,
            "replica": number,
            "running": int(rows["decoding"][row] + rows["prefilling"][row]),
            "waiting": int(rows["queued"][row]),
            "cache_fraction": float(rows["used_blocks"][row]) / blocks if blocks else 0.0,
            "prompt_tokens": int(prompts[row]),
            "decoded_tokens": int(outputs[row]),
            "preemptions": int(evictions[row]),
            "prefix_hit_tokens": int(tokens[found[row]]),
        }


def _thinned(rows: dict[str, Ints], most: int) -> NDArray[np.int64]:
    """Return the rows to keep: of each stretch the last, the longest queue, the fullest cache."""
    count = len(rows["ends"])
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, most // 3 + 1).astype(int)
    kept = set()
    for low, high in pairwise(edges.tolist()):
        kept |= {
            high - 1,
            low + int(np.argmax(rows["queued"][low:high])),
            low + int(np.argmax(rows["used_blocks"][low:high])),
        }
    return np.array(sorted(kept))


def _prefix_hits(asked: Requests) -> tuple[Ints, Ints]:
    """Return when requests got their place, and the tokens found in the cache up to then."""
    scheduled = np.asarray(asked.scheduled)
    came = np.flatnonzero(scheduled != NEVER)
    order = came[np.argsort(scheduled[came], kind="stable")]
    found = np.cumsum(np.asarray(asked.cached)[order])
    return scheduled[order], np.concatenate([[0], found])
