"""What happens over time: who runs and waits, how full the cache is, what came in and out."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.log import Log
from moesim.study.serving.gaps import Ints, columns
from moesim.study.serving.simulate import ServingOutcome
from moesim.study.serving.usage import EnginePlace, engine_places

MOST = 2000
"""Points of an engine's series at most."""

ALL = 20_000
"""Points of all series together, of which each engine has its part where they are many."""

LEAST = 60
"""Points that an engine has in any case, however many there are."""


def series(outcome: ServingOutcome) -> list[dict[str, Any]]:
    """Return the state of each engine at the ends of its iterations, thinned where they are many.

    Counters are those of the engine since it came up. Where its replica failed all is empty.
    """
    places = engine_places(outcome.run.pools, outcome.logs)
    return [row for place in places for row in of_place(outcome, place)]


def of_place(outcome: ServingOutcome, place: EnginePlace) -> Iterator[dict[str, Any]]:
    """Yield the states of one engine over all its lives, in the order of time."""
    fallen = [
        one.time_s
        for one in outcome.events
        if (one.pool, one.replica, one.event) == (place.pool, place.replica, "fails")
    ]
    who = {"pool": place.pool, "replica": place.replica, "rank": place.rank}
    most = max(LEAST, min(MOST, ALL // max(1, len(outcome.logs))))
    for log in place.logs:
        end = 0.0
        for row in _of_log(log, most):
            end = row["time_s"]
            yield {"time_s": end, **who, **row}
        later = [at for at in fallen if at >= end]
        if later and log.rows:
            yield {"time_s": later[0], **who, **dict.fromkeys(_NOTHING, 0)}


_NOTHING = (
    "running", "waiting", "cache_fraction", "prompt_tokens", "decoded_tokens", "first_tokens",
    "preemptions", "prefix_hit_tokens",
)  # fmt: skip


def _of_log(log: Log, most: int) -> Iterator[dict[str, Any]]:
    if not log.rows:
        return
    rows = columns(log)
    ends = rows["ends"]
    prompts = np.cumsum(rows["prompt_tokens"])
    outputs = np.cumsum(rows["yielded"] * rows["sequences"])
    evictions = np.searchsorted(np.array(log.evictions, dtype=np.int64), ends, side="right")
    firsts = np.searchsorted(np.array(log.firsts, dtype=np.int64), ends, side="right")
    times, tokens = _prefix_hits(log)
    found = np.searchsorted(times, ends, side="right")
    for row in _thinned(rows, most):
        yield {
            "time_s": float(ends[row]) / PS_PER_S,
            "running": int(rows["decoding"][row] + rows["prefilling"][row]),
            "waiting": int(rows["queued"][row]),
            "cache_fraction": float(rows["used_blocks"][row]) / log.blocks if log.blocks else 0.0,
            "prompt_tokens": int(prompts[row]),
            "decoded_tokens": int(outputs[row]),
            "first_tokens": int(firsts[row]),
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


def _prefix_hits(log: Log) -> tuple[Ints, Ints]:
    """Return when requests began of which something was found, and the tokens up to then."""
    pairs = np.frombuffer(log.hits, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], np.concatenate([[0], np.cumsum(pairs[:, 1])])
