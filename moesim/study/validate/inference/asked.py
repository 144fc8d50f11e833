"""The requests of a row: how many, how long, and how they come."""

import re
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.sim.serving.requests import Requests, requests
from moesim.study.validate.figures import number
from moesim.study.validate.inference.repeated import BLOCK, beginnings, distinct_prompts
from moesim.study.validate.inference.words import Said
from moesim.study.validate.skipped import SkippedError

_MOST = 50_000
"""Requests of a row that are simulated at most."""

_DATASETS = (
    ("openorca set", 430.0), ("mixtral set", 430.0), ("r1 set", 800.0),
    ("cnn/dailymail", 778.0), ("long-context set", 9400.0),
)  # fmt: skip
"""Mean tokens of prompts of MLPerf's sets: of the last three as MLCommons announced them, of the
first two assumed (all from memory, unchecked)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a deployment."""

    requests: Requests
    in_flight: int | None
    """None: they arrive when they do."""


def asked_of(said: Said, replicas: int) -> Asked:
    """Return the requests of a row for one of `replicas`; SkippedError where they are not said."""
    workload = said.case.part("workload")
    arrival = str(workload.get("arrival") or "").casefold()
    rate = said.figure("rate_rps", "request_rate_per_s", "rate")
    in_flight = said.count("concurrency", "max_concurrency", "batch", part="workload")
    if in_flight is None and (few := re.search(r"\b(\d+) concurrent", arrival)):
        in_flight = int(few[1])
    if rate is None and (found := re.search(r"(?:rate|about) (\d+(?:\.\d+)?) ?/s", _words(said))):
        rate = float(found[1])
    if rate is not None and in_flight is None:
        return _open(said, arrival, rate / replicas)
    if in_flight is not None:
        return _closed(said, max(1, in_flight // replicas))
    endless = "inf" in (said.row.get("request_rate_per_s"), said.row.get("rate_rps"))
    if endless or "t=0" in arrival or "at once" in arrival or _lengths_known(said):
        return _at_once(said, replicas)
    if any(name.endswith("_max") for name in said.row):
        said.assume("the most that is put out: all requests at once")
        return _at_once(said, replicas)
    raise SkippedError("how requests arrive is not said")


def _words(said: Said) -> str:
    return str(said.case.part("workload").get("arrival") or "").casefold()


def _lengths_known(said: Said) -> bool:
    return "mlperf" in str(said.case.part("workload").get("dataset") or "").casefold()


def _open(said: Said, arrival: str, rate: float) -> Asked:
    seconds = said.figure("stage_seconds") or 600.0
    count = said.count("num_requests", "requests", part="workload")
    count = count or _dataset_requests(said) or max(100, min(_MOST, round(rate * seconds)))
    prompts, outputs = _lengths(said, count)
    if "constant" in arrival:
        gaps = np.full(count, 1 / rate)
    else:
        said.assume("arrivals taken to be a Poisson process")
        gaps = rng.stream(0, "arrivals").exponential(1 / rate, count)
    arrivals = np.cumsum(gaps).tolist()
    todo = requests(prompts.tolist(), outputs.tolist(), arrivals)
    todo.prefix, todo.prefix_block = beginnings(said, prompts.tolist()), BLOCK
    return Asked(requests=todo, in_flight=None)


def _closed(said: Said, in_flight: int) -> Asked:
    """Ten prompts for each place, as the profile `inferencex` does; its warm-up ends before."""
    count = said.count("requests", "num_requests", part="workload")
    if count is None:
        count = 10 * in_flight
        if "inferencex" not in said.text("workload", "profile"):
            said.assume("number of requests not stated: ten for each place")
    if said.count("batch", part="workload"):
        count = in_flight
    prompts, outputs = _lengths(said, max(count, in_flight))
    return Asked(requests=requests(prompts.tolist(), outputs.tolist()), in_flight=in_flight)


def _at_once(said: Said, replicas: int) -> Asked:
    count = said.count("requests", part="workload") or _listed(said) or _dataset_requests(said)
    count = count or said.count("num_requests", part="workload")
    if count is None:
        count = 3000
        said.assume("number of requests not stated: 3000")
    prompts, outputs = _lengths(said, max(1, min(_MOST, count // replicas)))
    return Asked(requests=requests(prompts.tolist(), outputs.tolist()), in_flight=None)


def _listed(said: Said) -> int | None:
    """Read `30000 for 128/128; 3000 for 1000/1000, …`."""
    wanted = f"{said.row.get('isl')}/{said.row.get('osl')}"
    for part in said.text("workload", "num_requests").split(";"):
        count, _, shapes = part.strip().partition(" for ")
        if wanted in [one.strip() for one in shapes.split(",")] and count.isdigit():
            return int(count)
    return None


def _dataset_requests(said: Said) -> int | None:
    words = said.text("workload", "dataset")
    found = re.search(r"(\d+) (?:requests|prompts|samples)", words)
    if found:
        return min(_MOST, int(found[1]))
    return 24576 if "mlperf" in words.casefold() else None


def _lengths(said: Said, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    prompt, output, low = _means(said)
    dataset = said.text("workload", "dataset").casefold()
    if low is None and "sharegpt" in dataset:
        said.assume("lengths taken to be lognormal with a cv of 1, up to 4 times the mean")
        return _lognormal(prompt, count, "prompt"), _lognormal(output, count, "output")
    if low is None:
        return _uniform(prompt, prompt, count, "prompt"), _uniform(output, output, count, "output")
    if low == 0.0:  # uniform from 1 to twice the mean
        return (
            _uniform(1, 2 * prompt - 1, count, "prompt"),
            _uniform(1, 2 * output - 1, count, "output"),
        )
    return (
        _uniform(low * prompt, prompt, count, "prompt"),
        _uniform(low * output, output, count, "output"),
    )


def _means(said: Said) -> tuple[float, float, float | None]:
    """Return the lengths, and the share of them at which a uniform law begins; None: all alike."""
    count = said.figure("requests", part="workload") or float(_dataset_requests(said) or 0)
    totals = said.figure("input_tokens"), said.figure("output_tokens")
    if count and totals[0] and totals[1]:
        law = 0.0 if "uniform" in said.text("workload", "dataset") else None
        return totals[0] / count, totals[1] / count, law
    prompt, output = said.figure("isl"), said.figure("osl", "mean_osl")
    words = said.text("workload", "dataset").casefold()
    if prompt is None:
        prompt = next((mean for name, mean in _DATASETS if name in words), None)
        if prompt is not None:
            said.assume(f"prompts of {prompt:g} tokens on average, from memory")
    if output is None and (
        found := re.search(r"generated about (\d+)", said.text("workload", "osl"))
    ):
        output = float(found[1])
    mentioned = re.search(r"mean ~(\d+) in, ~(\d+) out", words)
    if mentioned and prompt is None:
        prompt, output = float(mentioned[1]), float(mentioned[2])
    if prompt is None and "sharegpt" in words:
        said.assume("ShareGPT: 217 tokens in and 200 out on average, as others counted")
        prompt, output = 217.0, 200.0
    if prompt is None or output is None:
        raise SkippedError("lengths of prompts and outputs are not said")
    prefix = number(said.case.part("workload").get("prefix_tokens"))
    cached = "prefix caching on" in said.text("engine", "flags") and not distinct_prompts(said)
    if prefix and prefix < prompt and cached:
        said.assume("the shared prefix is taken out of the prompts, as it is found in the cache")
        prompt -= prefix // 16 * 16
    profile = said.text("workload", "profile")
    if "aic-gap" in profile:
        said.assume("lengths not recorded: all as labelled")
    return prompt, output, 0.8 if profile == "inferencex" else None


def _uniform(low: float, high: float, count: int, what: str) -> NDArray[np.int64]:
    least, most = max(1, round(low)), max(1, round(high))
    if most > 10**7:
        raise SkippedError("requests are longer than ten million tokens")
    return rng.stream(0, f"{what} lengths").integers(least, max(least, most) + 1, count)


def _lognormal(mean: float, count: int, what: str) -> NDArray[np.int64]:
    """Return lengths with a cv of 1, scaled to the mean that was counted; long ones are cut.

    Benchmarks leave out of ShareGPT what is longer than 1024 tokens (vllm bench serve).
    """
    drawn = rng.stream(0, f"{what} lengths").lognormal(0.0, np.sqrt(np.log(2.0)), count)
    drawn = np.minimum(drawn, 4 * np.exp(np.log(2.0) / 2))
    found = np.maximum(1, np.rint(drawn * mean / drawn.mean())).astype(np.int64)
    return cast("NDArray[np.int64]", found)
