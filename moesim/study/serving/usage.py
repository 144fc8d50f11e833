"""What the logs of a run say of its engines: who each is, how busy, how many sequences at once."""

from dataclasses import dataclass

import numpy as np

from moesim.sim.serving.log import Log
from moesim.study.serving.gaps import Ints, columns
from moesim.study.serving.pools import PoolRun


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlace:
    """An engine of a run, over all its lives: after a failure it begins with an empty log."""

    pool: str
    replica: int
    """Its number in the pool."""
    rank: int
    """Of several engines of a replica: attention data parallel ranks, batches of a pipeline."""
    word: str
    """What that number is: rank, or batch where there are pipeline stages."""
    alone: bool
    """Whether it is its replica's only engine."""
    logs: tuple[Log, ...]
    """In the order of time."""

    @property
    def name(self) -> str:
        """What reports call it."""
        pool = "" if self.pool == "all" else f"{self.pool} "
        return f"{pool}replica {self.replica}" + ("" if self.alone else f" {self.word} {self.rank}")


def engine_places(pools: tuple[PoolRun, ...], logs: tuple[Log, ...]) -> list[EnginePlace]:
    """Return the engines of a run, pool by pool, in order."""
    found: dict[tuple[int, int, int], list[Log]] = {}
    for log in logs:
        found.setdefault(log.place, []).append(log)
    several = {(pool, replica) for pool, replica, rank in found if rank}
    return [
        EnginePlace(
            pool=pools[place[0]].name, replica=place[1], rank=place[2],
            word="batch" if pools[place[0]].engine.deployment.cut.pp > 1 else "rank",
            alone=place[:2] not in several, logs=tuple(sorted(found[place], key=_start)),
        )
        for place in sorted(found)
    ]  # fmt: skip


def _start(log: Log) -> int:
    return log.rows[0] if log.rows else 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the engines of a pool did."""

    iterations: int
    prompt_iterations: int
    """Those that computed a part of a prompt."""
    prompt_tokens: int | None
    """Tokens of prompts in one of these on an engine, on average; None without any."""
    sequences: int | None
    """Sequences that decode together on an engine, on average over its decode iterations."""
    busy_fraction: float
    """Share of the time from the first iteration of the pool to its last in which an engine
    computes, on average over its engines."""
    most_waiting: int
    """Longest queue of an engine."""
    most_cache_fraction: float
    """The fullest cache of an engine."""


def usage(places: list[EnginePlace]) -> Usage:
    """Return what the engines of one pool did."""
    logs = [log for place in places for log in place.logs if log.rows]
    rows = [columns(log) for log in logs]
    decodes = [(one["steps"], one["sequences"]) for one in rows]
    steps = sum(int(number[who > 0].sum()) for number, who in decodes)
    shared = sum(int(np.dot(number, who)) for number, who in decodes)
    prompts = [one["prompt_tokens"] for one in rows]
    some = sum(int((tokens > 0).sum()) for tokens in prompts)
    return Usage(
        iterations=sum(int(one["steps"].sum()) for one in rows), prompt_iterations=some,
        prompt_tokens=round(sum(int(t.sum()) for t in prompts) / some) if some else None,
        sequences=max(1, round(shared / steps)) if steps else None,
        busy_fraction=_busy(rows, len(places)),
        most_waiting=max((int(one["queued"].max()) for one in rows), default=0),
        most_cache_fraction=max(
            (log.most_blocks / log.blocks for log in logs if log.blocks), default=0.0
        ),
    )  # fmt: skip


def _busy(rows: list[dict[str, Ints]], engines: int) -> float:
    if not rows:
        return 0.0
    span = max(int(one["ends"][-1]) for one in rows) - min(int(one["start"][0]) for one in rows)
    busy = sum(int((one["ends"] - one["start"]).sum()) for one in rows)
    return busy / (span * engines) if span else 0.0
