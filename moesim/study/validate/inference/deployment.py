"""From a case to a deployment: scenario, architecture, rules of the engine, iteration times."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from moesim.cost.iteration import TabledTimes
from moesim.cost.serving.capacity import memory
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.table import HostTime, iteration_times
from moesim.errors import ProfileError, ScenarioError
from moesim.model.architecture import Architecture
from moesim.sim.serving.rules import EngineRules
from moesim.spec.cases import CaseFile
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from moesim.study.serving.host import host_time
from moesim.study.serving.presets.lookup import published_engine
from moesim.study.serving.resolve import Serving, limits, resolve
from moesim.study.validate.engine_flags import read_flags
from moesim.study.validate.inference.formats import read_formats
from moesim.study.validate.inference.models import model_of
from moesim.study.validate.inference.words import Said, chip_of, engine_of
from moesim.study.validate.skipped import SkippedError

_STAND_IN = "llama-3.1-8b"
"""Model of the scenario that is resolved; the case's own network takes its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A deployment of a case, ready to be asked."""

    engine: str
    run: Serving
    times: TabledTimes
    devices: int
    replicas: int
    host: HostTime

    @property
    def on(self) -> Deployment:
        """Return what is deployed."""
        return self.run.deployment

    @property
    def rules(self) -> EngineRules:
        """Return what its engine allows."""
        return self.run.rules


@dataclass(slots=True)
class Deployments:
    """The deployments of one case: rows that are cut alike share their iteration tables."""

    file: CaseFile
    known: dict[str, tuple[Serving, TabledTimes]] = field(default_factory=dict)
    times: dict[str, TabledTimes] = field(default_factory=dict)
    """Of replicas that only prefill or decode."""
    host: HostTime | None = None
    """Host times instead of the software profile's, for fitting them."""

    def of(self, said: Said, model: str = "") -> Served:
        """Return the deployment of a case and row; SkippedError where it cannot be mapped."""
        architecture = model_of(model or said.case.text("model"), self.file)
        if architecture.encoder and said.case.kind != "memory":
            raise SkippedError("models with an encoder are compared by memory alone")
        cut = read_cut(said)
        data = scenario_of(said, architecture, cut)
        key = repr((model, data["cluster"], data["serving"]["parallel"],
                    data["serving"]["formats"], data["serving"]["engine"]["name"]))  # fmt: skip
        if key not in self.known:
            run = _resolved(data, architecture)
            host = self.host or host_time(run.deployment.software)
            try:
                self.known[key] = (run, iteration_times(run.deployment, host))
            except AssertionError:
                raise SkippedError("attention of this model has no curve on this device") from None
        run, times = self.known[key]
        host = self.host or host_time(run.deployment.software)
        scenario = build(ServingScenario, Document(data))
        return Served(
            engine=data["serving"]["engine"]["name"],
            run=replace(run, rules=_rules(run, scenario, _stated_blocks(said))), times=times,
            devices=cut["tp"] * cut["dp"] * cut["pp"] * cut["replicas"],
            replicas=cut["replicas"], host=host,
        )  # fmt: skip


def _resolved(data: dict[str, Any], architecture: Architecture) -> Serving:
    try:
        run = resolve(build(ServingScenario, Document(data)), architecture)
    except (ScenarioError, ProfileError, AssertionError) as error:
        raise SkippedError(f"cannot be run: {error}") from None
    heads = [getattr(run_.layer.attention, "heads", 0) for run_ in architecture.decoder]
    if any(count and run.deployment.cut.tp > count for count in heads):
        raise SkippedError("more tensor parallel ranks than heads of attention")
    return run


def _stated_blocks(said: Said) -> int | None:
    """Return the blocks of cache that an engine was told to take, or logged."""
    stated = read_flags(said.text("engine", "flags")).features.get("cache_blocks")
    return int(stated) if stated else None


def _rules(run: Serving, scenario: ServingScenario, stated: int | None) -> EngineRules:
    asked, rules = scenario.serving.engine, run.rules
    return replace(
        rules,
        max_sequences=asked.max_sequences or run.preset.max_sequences,
        token_budget=asked.token_budget or run.preset.token_budget,
        blocks=stated or memory(run.deployment, limits(run.preset, asked)).blocks,
    )


def scenario_of(said: Said, architecture: Architecture, cut: dict[str, int]) -> dict[str, Any]:
    """Return a scenario of one replica; its model is a stand-in for `architecture`."""
    profile, name = chip_of(said), engine_of(said)
    concurrency = said.count("concurrency", "max_concurrency", part="workload")
    isl = said.figure("isl", "isl_param")
    flags = read_flags(said.text("engine", "flags"), concurrency, prompt_tokens=isl, mode="offline")
    for one in flags.assumed:
        said.assume(one)
    version = _version(said, name)
    return {
        "model": _STAND_IN,
        "cluster": {"profile": profile, "devices": cut["tp"] * cut["dp"] * cut["pp"]},
        "serving": {
            "engine": {"name": name, "version": version, **flags.engine},
            "parallel": {key: cut[key] for key in ("tp", "dp", "ep", "pp")} | _exchange(said),
            "formats": read_formats(said, architecture, profile, name) | flags.formats,
            "workload": {"arrivals": "at_once", "prompt": 1024, "output": 1024},
        },
    }


def _version(said: Said, engine: str) -> str | None:
    """Return the release that stands for the one of the case or row."""
    words = said.text("engine", "version")
    for part in words.split(";"):  # vLLM: v0.11.0; SGLang: v0.5.3; …
        name, colon, own = part.partition(": v")
        if colon and name.strip().casefold().startswith(engine[:5]):
            words = own
    under = " under dynamo" if "dynamo" in said.text("engine", "name").casefold() else ""
    found = published_engine(f"{engine}{under}", words)
    if found is None:
        return None
    if found[1].note:
        said.assume(found[1].note)
    return found[1].version


def _whole(said: Said, devices: int) -> int:
    """Return the ranks of a deployment that only states its devices: those of a node at most."""
    width = devices if devices <= 8 else 8
    if width > 1 and devices:
        said.assume(f"ranks not stated: tensor parallel over {width} devices")
    return width


def _exchange(said: Said) -> dict[str, str]:
    name = said.case.part("parallel").get("exchange")
    return {"exchange": name} if isinstance(name, str) else {}


def read_cut(said: Said) -> dict[str, int]:
    """Return the ranks of a replica, and how many replicas there are.

    `tp` counts the ranks of attention; where it and attention data parallel ranks together are
    more than the devices, engines mean all ranks by it (SGLang, TensorRT-LLM with attention DP).
    """
    if said.case.part("parallel").get("disagg"):
        raise SkippedError("neither the replicas of prefill and decode nor a step's batch is said")
    pp = said.count("pp") or 1
    devices = said.count("gpus", "tp", part="hardware")
    words = str(said.row.get("attention") or "").casefold()
    if twins := re.match(r"(\d)xTP(\d)$", str(said.row.get("variant"))):
        return {"tp": int(twins[2]), "dp": 1, "ep": 1, "pp": 1, "replicas": int(twins[1])}
    system = re.match(r"tp(\d) pp(\d) x(\d)$", str(said.case.part("parallel").get("offline")))
    if system:
        stage, stages, copies = (int(one) for one in system.groups())
        return {"tp": stage, "dp": 1, "ep": 1, "pp": stages, "replicas": copies}
    tp = said.count("tp", "gpus_tp", "gpus")
    dp = said.count("dp_attn") or 1
    ep = said.count("ep") or 1
    if tp is None:
        tp = 1 if dp > 1 else _whole(said, devices or 1)
    if "dp" in words and dp == 1:
        tp, dp = 1, tp
    if devices is not None and dp > 1 and tp * dp > devices and tp % dp == 0:
        tp //= dp
    if isinstance(said.case.part("parallel").get("ep"), str):
        said.assume("expert parallel ranks not stated: experts are cut, not spread")
    replicas = said.count("replicas") or max(1, (devices or 1) // (tp * dp * pp))
    return {"tp": tp, "dp": dp, "ep": ep, "pp": pp, "replicas": replicas}
