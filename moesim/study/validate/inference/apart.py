"""Rows whose prefill and decode have replicas of their own.

Clients see the first token when the cache has reached the decode replica: the router of NVIDIA
Dynamo and the orchestrator of TensorRT-LLM pass on what decode replicas send (from memory,
unchecked); published rows of such deployments say that their TTFT includes the transfer.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moesim.cost.iteration import TabledTimes
from moesim.cost.serving.table import iteration_times
from moesim.errors import ProfileError, ScenarioError
from moesim.hardware.profiles import load_cluster
from moesim.model.architecture import Architecture
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.requests import Requests
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from moesim.study.serving.fleet import Fleet, fleet
from moesim.study.serving.host import as_clients_see, host_time
from moesim.study.serving.pools import Engine
from moesim.study.serving.resolve import Serving, resolve
from moesim.study.validate.inference.asked import Asked, asked_of
from moesim.study.validate.inference.deployment import Deployments, Served, scenario_of
from moesim.study.validate.inference.models import model_of
from moesim.study.validate.inference.simulated import Run, built_for, measured
from moesim.study.validate.inference.words import Said
from moesim.study.validate.skipped import SkippedError

_SEEN = "the first token is seen when the cache has reached the decode replica"
_SIDES = {"prefill": "p", "decode": "d"}
_SPLIT = re.compile(r"\bTP(\d)\b")


def is_apart(said: Said) -> bool:
    """Tell whether a row counts replicas of prefill and of decode, or says that it is split."""
    counted = said.count("prefill_workers") and said.count("decode_workers")
    return bool(counted) or said.row.get("variant") == "PD split"


def run_apart(said: Said, deployments: Deployments) -> Run:
    """Return the run of a row; SkippedError where it cannot be mapped."""
    asked = asked_of(said, 1)
    todo = asked.requests
    run = _run(said, model_of(said.case.text("model"), deployments.file), todo)
    said.assume(_SEEN)
    landed = _served(fleet(run, todo, lambda engine: _times(engine, deployments)), asked)
    served = Served(
        engine=run.scenario.serving.engine.name, run=run,
        times=_times(run.pools[-1].engine, deployments),
        devices=sum(pool.replicas * pool.engine.width for pool in run.pools), replicas=1,
        host=deployments.host or host_time(run.deployment.software),
    )  # fmt: skip
    as_clients_see(todo, served.host)
    return measured(served, asked, landed)


def _run(said: Said, architecture: Architecture, todo: Requests) -> Serving:
    """Return the pools of a row, ready for these requests."""
    counts = {name: said.count(f"{name}_workers") or 1 for name in _SIDES}
    run = _resolved(_data(said, architecture, counts), architecture)
    pools = tuple(
        replace(
            pool, replicas=counts[pool.name],
            engine=replace(pool.engine, rules=built_for(pool.engine.rules, todo)),
        )
        for pool in run.pools
    )  # fmt: skip
    return replace(run, pools=pools)


def _served(whole: Fleet, asked: Asked) -> list[int]:
    """Let the requests be served; return when each cache had arrived, or the first token came."""
    assert whole.joined is not None
    at: dict[int, int] = {}
    whole.joined.on_landed = at.__setitem__
    todo = asked.requests
    if asked.in_flight is None:
        serve(whole.loop, todo)
    else:
        serve_closed(whole.loop, todo, asked.in_flight)
    return [at.get(request, first) for request, first in enumerate(todo.first)]


def _times(engine: Engine, deployments: Deployments) -> TabledTimes:
    on = engine.deployment
    key = repr((on.cut, on.formats, on.software.name, on.architecture.name))
    if key not in deployments.times:
        host = deployments.host or host_time(on.software)
        try:
            deployments.times[key] = iteration_times(on, host)
        except AssertionError:
            raise SkippedError("attention of this model has no curve on this device") from None
    return deployments.times[key]


def _data(said: Said, architecture: Architecture, counts: Mapping[str, int]) -> Mapping[str, Any]:
    """Return a scenario with a pool of each; its model is a stand-in.

    Clusters are whole nodes: more prefill replicas fill the last one, and are taken away later.
    """
    cuts = {name: _cut(said, side) for name, side in _SIDES.items()}
    data = scenario_of(said, architecture, cuts["decode"])
    node = load_cluster(data["cluster"]["profile"]).devices_per_node.value
    width = {name: cut["tp"] * cut["dp"] for name, cut in cuts.items()}
    count = dict(counts)
    devices = sum(count[name] * width[name] for name in cuts)
    missing = -devices % node if devices > node else 0
    if missing and missing % width["prefill"] == 0:
        count["prefill"] += missing // width["prefill"]
        devices += missing
    data["cluster"]["devices"] = devices
    data["serving"]["cluster"] = {
        "disaggregation": "prefill_decode",
        **{
            name: {
                "replicas": count[name],
                "parallel": {key: cut[key] for key in ("tp", "dp", "ep", "pp")},
            }
            for name, cut in cuts.items()
        },
    }
    return data


def _cut(said: Said, side: str) -> dict[str, int]:
    """Return the ranks of a replica of prefill (p) or decode (d)."""
    tp = said.count(f"{side}_tp")
    if tp is None:
        width = _SPLIT.search(said.text("parallel", "variants"))
        if width is None:
            raise SkippedError("the ranks of prefill and decode are not said")
        tp = int(width[1])
        said.assume(f"prefill and decode split: one replica of {tp} devices each")
    dp, ep = (said.count(f"{side}_{name}") or 1 for name in ("dp_attn", "ep"))
    return {"tp": tp, "dp": dp, "ep": ep, "pp": 1, "replicas": 1}


def _resolved(data: Mapping[str, Any], architecture: Architecture) -> Serving:
    scenario = build(ServingScenario, Document(data))
    try:
        return resolve(scenario, architecture)
    except (ScenarioError, ProfileError, AssertionError) as error:
        raise SkippedError(f"cannot be run: {error}") from None
