"""Draws the requests of a workload."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.curves import Array
from moesim.sim.serving.requests import Requests, requests
from moesim.spec.serving.lengths import LengthsSpec
from moesim.spec.serving.workload import WorkloadSpec


def drawn(workload: WorkloadSpec, seed: int) -> Requests:
    """Return the requests; those of a closed loop get their arrivals when they come."""
    count = workload.requests
    prompts = lengths(workload.prompt, count, rng.stream(seed, "prompt lengths"))
    outputs = lengths(workload.output, count, rng.stream(seed, "output lengths"))
    arrivals = None
    if workload.rate is not None:
        arrivals = np.cumsum(gaps(workload, rng.stream(seed, "arrivals"))).tolist()
    return requests(prompts.tolist(), outputs.tolist(), arrivals)


def lengths(law: LengthsSpec, count: int, draw: Generator) -> NDArray[np.int64]:
    """Return so many lengths in tokens, at least 1 each.

    lognormal: with sigma^2 = ln(1 + cv^2) and mu = ln(mean) - sigma^2 / 2.
    """
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


def gaps(workload: WorkloadSpec, draw: Generator) -> Array:
    """Return the seconds between arrivals; the first request comes after the first gap.

    gamma: shape b and mean 1 / rate, so that their cv is 1 / sqrt(b).
    """
    assert workload.rate is not None
    mean, count = 1 / workload.rate, workload.requests
    if workload.arrivals == "constant":
        return np.full(count, mean)
    if workload.arrivals == "gamma":
        assert workload.burstiness is not None
        return draw.gamma(workload.burstiness, mean / workload.burstiness, count)
    return draw.exponential(mean, count)
