"""From a serving scenario to a deployment, its costs and its engine's rules."""

from dataclasses import dataclass
from typing import TypedDict

from moesim.cost.collectives import Network, network
from moesim.cost.serving.capacity import Limits, Memory, memory
from moesim.cost.serving.deployment import Cut, Deployment, Formats
from moesim.cost.software import Software, load_software, on_device
from moesim.errors import ScenarioError
from moesim.hardware.groups import Group
from moesim.hardware.topology import Cluster
from moesim.model.architecture import Architecture, MoeFfn
from moesim.moe.loads import LoadLaw
from moesim.moe.natural import natural_cv
from moesim.sim.serving.rules import EngineRules
from moesim.spec.serving.cluster import FfnSpec
from moesim.spec.serving.engine import EngineSpec, FormatsSpec
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.resolve import baseline_model, chosen_machines, placed
from moesim.study.serving.encoders import for_encoder
from moesim.study.serving.engines import Preset, preset_of
from moesim.study.serving.options import pace, with_options
from moesim.study.serving.pools import Engine, PoolRun, check_failures, pools


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A serving run, resolved."""

    scenario: ServingScenario
    cluster: Cluster
    deployment: Deployment
    preset: Preset
    rules: EngineRules
    replicas: int
    pools: tuple[PoolRun, ...]
    """Alike replicas each; the last one's deployment and rules are those above."""
    step_by_step: bool = False
    """Simulate each decode step on its own, which takes longer and changes no time (law 11)."""

    @property
    def memory(self) -> Memory:
        """Memory of a device of the pool whose replicas have room for the fewest tokens."""
        return min((pool.engine.memory for pool in self.pools), key=lambda one: one.tokens)


def resolve(scenario: ServingScenario, model: Architecture | None = None) -> Serving:
    """Return the run that `scenario` describes, of `model` in place of the one it names.

    Raises ScenarioError where keys contradict each other or the model; ModelError and ProfileError
    where these lack something.
    """
    machines = _cluster(scenario)
    found = pools(
        scenario, machines.topology.devices, lambda asked: _engine(asked, machines, model)
    )
    check_failures(scenario, found)
    last = found[-1].engine
    return Serving(
        scenario=scenario, cluster=machines, deployment=last.deployment, preset=last.preset,
        rules=last.rules, replicas=sum(pool.replicas for pool in found), pools=found,
    )  # fmt: skip


def _engine(scenario: ServingScenario, machines: Cluster, model: Architecture | None) -> Engine:
    preset = _preset(scenario, machines)
    on = _deployment(scenario, machines, preset, model)
    preset = for_encoder(preset, on.architecture)
    held = memory(on, limits(preset, scenario.serving.engine))
    rules = rules_of(scenario, preset, held.blocks)
    return Engine(deployment=on, preset=preset, rules=rules, memory=held)


def _preset(scenario: ServingScenario, machines: Cluster) -> Preset:
    engine = scenario.serving.engine
    try:
        return preset_of(engine.name, machines.device, engine.version, scenario.serving.parallel)
    except ValueError as error:
        raise scenario.error("serving.engine.version", str(error)) from None


def _cluster(scenario: ServingScenario) -> Cluster:
    choice = scenario.cluster
    if choice.speed_spread or choice.slow is not None:
        key = "slow" if choice.slow is not None else "speed_spread"
        raise scenario.error(
            f"cluster.{key}", "devices of unequal speed are not modelled in serving; leave it out"
        )
    return chosen_machines(scenario)


def _deployment(
    scenario: ServingScenario, chosen: Cluster, preset: Preset, model: Architecture | None
) -> Deployment:
    asked = scenario.serving.parallel
    link = chosen.topology.scale_up.bandwidth_bytes_per_s
    software = on_device(_software(scenario, preset), chosen.device, link)
    cut = Cut(
        tp=asked.tp, dp=asked.dp, ep=asked.ep, pp=asked.pp, dcp=asked.dcp,
        exchange=asked.exchange or preset.exchange, redundant_experts=asked.redundant_experts,
        **_ffn(scenario.serving.cluster.ffn),
    )  # fmt: skip
    if cut.expert_ranks % cut.ep:
        where = "cluster.ffn.devices" if cut.ffn else "tp * dp"
        raise scenario.error(
            "serving.parallel.ep", f"must divide {where} = {cut.expert_ranks}, the ranks of a stage"
        )

    if cut.tp % cut.dcp:
        raise scenario.error("serving.parallel.dcp", f"must divide tp = {cut.tp}")

    _check_devices(scenario, cut, chosen.topology.devices)

    def among(size: int, apart: int = 1) -> Network:
        return network(Group(size, apart), chosen.topology, software)

    if software.kernels is None:
        raise scenario.error(
            "software", f"{software.name} names no measured kernels, which serving needs"
        )
    architecture = model or baseline_model(scenario, "model", scenario.model)
    plain = Deployment(
        architecture=architecture, device=chosen.device,
        chip=software.kernels.chip, kernels=software.kernels, software=software,
        networks={
            "tp": among(cut.tp), "ep": among(cut.tp * cut.dp + cut.ffn),
            **({"dcp": among(cut.dcp)} if cut.dcp > 1 else {}),
        }, cut=cut,
        formats=formats(scenario.serving.formats), load=natural_load(architecture),
        overlap=scenario.serving.engine.overlap,
    )  # fmt: skip
    return with_options(plain, scenario, preset)


def _check_devices(scenario: ServingScenario, cut: Cut, devices: int) -> None:
    """Raise ScenarioError where the ranks of one stage are more than all devices."""
    ranks = cut.tp * cut.dp + cut.ffn
    if ranks > devices:
        parts = "tp * dp + cluster.ffn.devices" if cut.ffn else "tp * dp"
        raise scenario.error(
            "serving.parallel",
            f"{parts} = {ranks} ranks of a stage need more than {devices} devices",
        )


class FfnCut(TypedDict, total=False):
    """What devices with feed-forward networks alone add to a cut."""

    ffn: int
    micro_batches: int


def _ffn(asked: FfnSpec | None) -> FfnCut:
    if asked is None:
        return {}
    return {"ffn": asked.devices, "micro_batches": asked.micro_batches}


def _software(scenario: ServingScenario, preset: Preset) -> Software:
    if scenario.software is None:
        return load_software(preset.software)
    try:
        return load_software(scenario.path_of(scenario.software))
    except ScenarioError as error:
        raise placed(scenario, "software", error) from None


def natural_load(architecture: Architecture) -> LoadLaw:
    """Return the load of experts that a finished model shows where nothing else is known."""
    kinds = (run.layer.ffn for run in (*architecture.decoder, *architecture.encoder))
    experts = next((ffn.num_experts for ffn in kinds if isinstance(ffn, MoeFfn)), 1)
    return LoadLaw(law="dirichlet", cv=natural_cv(experts)) if experts > 1 else LoadLaw()


def formats(spec: FormatsSpec) -> Formats:
    """Return the formats of all components."""
    return Formats(
        attention=spec.attention or spec.weights, dense=spec.dense or spec.weights,
        experts=spec.experts or spec.weights, head=spec.head, cache=spec.cache,
    )  # fmt: skip


def limits(preset: Preset, asked: EngineSpec) -> Limits:
    """Return what of the engine's settings decides about memory."""
    return Limits(
        fraction=asked.memory_fraction or preset.memory_fraction, memory_of=preset.memory_of,
        token_budget=asked.token_budget or preset.token_budget,
        max_sequences=asked.max_sequences or preset.max_sequences,
        block_tokens=asked.block_tokens or preset.block_tokens,
    )  # fmt: skip


def rules_of(scenario: ServingScenario, preset: Preset, blocks: int) -> EngineRules:
    """Return the engine's rules where the cache has so many blocks."""
    asked = scenario.serving.engine
    reserve = preset.reserve_output if asked.reserve_output is None else asked.reserve_output
    caching = preset.prefix_caching if asked.prefix_caching is None else asked.prefix_caching
    return EngineRules(
        batching=asked.batching or preset.batching,
        max_sequences=asked.max_sequences or preset.max_sequences,
        token_budget=asked.token_budget or preset.token_budget,
        block_tokens=(asked.block_tokens or preset.block_tokens) * scenario.serving.parallel.dcp,
        balance_steps=asked.balance_steps or 0, blocks=blocks, reserve_output=reserve,
        max_model_tokens=asked.max_model_tokens, prefix_caching=caching, **pace(asked.speculative),
    )  # fmt: skip
