"""When each token of each request came out, where that is short enough to list."""

from collections.abc import Iterator

import numpy as np

from moesim.cost.iteration import PS_PER_S, step_ps
from moesim.sim.serving.log import Log
from moesim.sim.serving.requests import NEVER
from moesim.study.serving.gaps import columns
from moesim.study.serving.simulate import ServingOutcome

MOST_TOKENS = 200_000
"""Tokens that are listed at most."""


def iterations(log: Log, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield row, start and end (picoseconds) of the first iterations, skipped steps one by one."""
    rows = columns(log)
    done = 0
    for row in range(len(rows["start"])):
        at, ends = int(rows["start"][row]), int(rows["ends"][row])
        sequences, cached = int(rows["sequences"][row]), int(rows["cached"][row])
        steps = int(rows["steps"][row])
        for step in range(steps):
            if done == most:
                return
            left = steps - step
            took = ends - at if left == 1 else step_ps(log.times.lines(sequences), cached)
            if left > 1 and took * left > 2 * (ends - at):  # ranks that wait for each other
                took = (ends - at) // left
            yield row, at, at + took
            at += took
            cached += sequences
            done += 1


def inter_token_s(outcome: ServingOutcome) -> list[list[float]]:
    """Return the gaps of each request that counts and has finished; nothing where they are many.

    Of a run with several replicas, or in which requests lost their place, nothing is listed.
    """
    asked, logs = outcome.requests, outcome.logs
    if len(logs) != 1 or sum(asked.output) > MOST_TOKENS or logs[0].evictions:
        return []
    log = logs[0]
    decoded = columns(log)["sequences"] > 0
    ends = np.array(
        [end for row, _, end in iterations(log, MOST_TOKENS) if decoded[row]], dtype=np.int64
    )
    found = []
    for request in range(outcome.run.scenario.serving.workload.warm_up, len(asked)):
        first, finish = asked.first[request], asked.finish[request]
        if finish == NEVER:
            continue
        low, high = np.searchsorted(ends, [first, finish], side="right")
        tokens = np.concatenate([[first], ends[low:high]])
        found.append((np.diff(tokens) / PS_PER_S).tolist())
    return found


def most_tokens_in_a_second(outcome: ServingOutcome) -> float:
    """Return the most tokens that came out in one of the seconds from the first arrival on.

    Tokens of skipped steps are spread evenly over their row (vLLM counts them by second too).
    """
    origin = min(outcome.requests.arrival, default=0)
    found: dict[int, float] = {}
    for log in outcome.logs:
        rows = columns(log)
        for start, end, tokens in zip(
            rows["start"].tolist(), rows["ends"].tolist(),
            (rows["yielded"] * rows["sequences"]).tolist(), strict=True,
        ):  # fmt: skip
            if tokens:
                _spread(found, start - origin, end - origin, tokens)
        for at in log.firsts:
            second = (at - origin) // PS_PER_S
            found[second] = found.get(second, 0.0) + 1
    return max(found.values(), default=0.0)


def _spread(found: dict[int, float], start: int, end: int, tokens: float) -> None:
    low, high = start // PS_PER_S, (end - 1) // PS_PER_S
    for second in range(low, high + 1):
        part = min(end, (second + 1) * PS_PER_S) - max(start, second * PS_PER_S)
        found[second] = found.get(second, 0.0) + tokens * part / (end - start)
