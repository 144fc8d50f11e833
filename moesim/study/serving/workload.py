"""Draws the requests of a workload."""

from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.curves import Array
from moesim.cost.iteration import PS_PER_S
from moesim.errors import Problem, ScenarioError
from moesim.sim.serving.driver import Engine
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.sessions import serve_sessions
from moesim.spec.serving.lengths import LengthsSpec
from moesim.spec.serving.workload import WorkloadSpec
from moesim.study.serving.conversations import conversations, pauses
from moesim.study.serving.traces.read import read_lengths
from moesim.study.serving.traces.replay import traced
from moesim.study.serving.traces.rows import LATEST_PS

FileOf = Callable[[str], Path]
"""From a file's name in a scenario to its path."""


def drawn(workload: WorkloadSpec, seed: int, file_of: FileOf = Path) -> Requests:
    """Return the requests; those that others cause get their arrivals when they come.

    Raises ScenarioError where a file cannot be read or says something senseless.
    """
    if workload.trace is not None:
        return _traced(workload, seed, file_of)
    assert workload.prompt is not None
    assert workload.output is not None

    def lengths_of(law: LengthsSpec, name: str, count: int) -> NDArray[np.int64]:
        found = known(law, name, file_of)
        return lengths(law, count, rng.stream(seed, f"{name} lengths"), found)

    count = workload.requests
    if workload.sessions is None:
        prompts = lengths_of(workload.prompt, "prompt", count)
        outputs = lengths_of(workload.output, "output", count)
        arrivals = times_ps(workload, count, seed)
        return Requests(column(prompts), column(outputs), column(arrivals))
    asked = conversations(workload, lengths_of)
    assert asked.turn is not None
    first = np.asarray(asked.turn) == 0
    arrivals = np.full(count, -1, dtype=np.int64)
    arrivals[first] = times_ps(workload, int(first.sum()), seed)
    asked.arrival = column(arrivals)
    return asked


def serve_workload(server: Engine, asked: Requests, workload: WorkloadSpec, seed: int) -> None:
    """Let the requests of a workload come to a server, until the last has finished."""
    if workload.sessions is not None:
        think = pauses(workload.sessions, asked, rng.stream(seed, "think times"))
        serve_sessions(server, asked, think, workload.in_flight)
    elif workload.in_flight is not None:
        serve_closed(server, asked, workload.in_flight)
    else:
        serve(server, asked)


def _traced(workload: WorkloadSpec, seed: int, file_of: FileOf) -> Requests:
    trace = workload.trace
    assert trace is not None
    asked = traced(trace, file_of(trace.file), timed=workload.arrivals == "trace")
    if workload.warm_up >= len(asked):
        message = f"warm_up {workload.warm_up} leaves none of {len(asked)} requests of the trace"
        raise ScenarioError([Problem("serving.workload.warm_up", message)])
    if workload.rate is not None:
        asked.arrival = column(times_ps(workload, len(asked), seed))
    return asked


def known(law: LengthsSpec, side: str, file_of: FileOf) -> NDArray[np.int64] | None:
    """Return the lengths that an empirical law draws from; None for the other laws.

    `side` says of a trace whether its prompts or its outputs are meant.
    """
    if law.values is not None:
        return np.array(law.values, dtype=np.int64)
    if law.file is not None:
        return np.array(read_lengths(file_of(law.file), side), dtype=np.int64)
    return None


def lengths(
    law: LengthsSpec, count: int, draw: Generator, found: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return so many lengths in tokens, at least 1 each; `found` is what an empirical law knows.

    lognormal: with sigma^2 = ln(1 + cv^2) and mu = ln(mean) - sigma^2 / 2.
    """
    if found is not None:
        return found[draw.integers(0, len(found), count)]
    if law.law == "uniform":
        assert law.low is not None and law.high is not None
        return draw.integers(law.low, law.high + 1, count)
    assert law.mean is not None
    if law.law == "lognormal":
        assert law.cv is not None
        variance = np.log1p(law.cv**2)
        drawn = draw.lognormal(np.log(law.mean) - variance / 2, np.sqrt(variance), count)
        return np.maximum(1, np.rint(drawn)).astype(np.int64)
    return np.full(count, max(1, round(law.mean)), dtype=np.int64)


def times_ps(workload: WorkloadSpec, count: int, seed: int) -> NDArray[np.int64]:
    """Return so many arrivals in picoseconds, all 0 without a rate."""
    if workload.rate is None:
        return np.zeros(count, dtype=np.int64)
    seconds = np.cumsum(gaps(workload, count, rng.stream(seed, "arrivals")))
    if seconds[-1] > LATEST_PS / PS_PER_S:
        most = f"{LATEST_PS // PS_PER_S:,} s"
        message = f"{count} requests at {workload.rate} /s take longer than {most}"
        raise ScenarioError([Problem("serving.workload.rate", message)])
    return np.rint(seconds * PS_PER_S).astype(np.int64)


def gaps(workload: WorkloadSpec, count: int, draw: Generator) -> Array:
    """Return the seconds between arrivals; the first request comes after the first gap.

    gamma: shape b and mean 1 / rate, so that their cv is 1 / sqrt(b).
    """
    assert workload.rate is not None
    mean = 1 / workload.rate
    if workload.arrivals == "constant":
        return np.full(count, mean)
    if workload.arrivals == "gamma":
        assert workload.burstiness is not None
        return draw.gamma(workload.burstiness, mean / workload.burstiness, count)
    return draw.exponential(mean, count)


def column(values: NDArray[np.int64]) -> "array[int]":
    """Return `values` as a column of requests."""
    return array("q", values.astype(np.int64).tobytes())
