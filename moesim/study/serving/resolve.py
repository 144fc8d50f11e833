"""From a serving scenario to a deployment, its costs and its engine's rules."""

from dataclasses import dataclass

from moesim.cost.collectives import Network, network
from moesim.cost.serving.deployment import Cut, Deployment, Formats
from moesim.cost.serving.memory import cache_bytes, weights
from moesim.cost.software import load_software, on_device
from moesim.errors import ScenarioError
from moesim.hardware.groups import Group
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import Cluster, cluster
from moesim.model.architecture import Architecture, MoeFfn
from moesim.model.named import load_model
from moesim.moe.loads import LoadLaw
from moesim.moe.natural import natural_cv
from moesim.sim.serving.rules import EngineRules
from moesim.spec.serving.engine import FormatsSpec
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.engines import Preset, preset_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A serving run, resolved."""

    scenario: ServingScenario
    cluster: Cluster
    deployment: Deployment
    preset: Preset
    rules: EngineRules
    replicas: int


def resolve(scenario: ServingScenario) -> Serving:
    """Return the run that `scenario` describes.

    Raises ScenarioError where keys contradict each other or the model; ModelError and ProfileError
    where these lack something.
    """
    machines = _cluster(scenario)
    preset = _preset(scenario, machines)
    on = _deployment(scenario, machines, preset)
    width = on.cut.tp * on.cut.dp * on.cut.pp
    if machines.topology.devices % width:
        raise scenario.error(
            "serving.parallel",
            f"tp * dp * pp = {width} must divide the {machines.topology.devices} devices",
        )
    blocks = cache_blocks(on, preset, scenario)
    return Serving(
        scenario=scenario, cluster=machines, deployment=on, preset=preset,
        rules=_rules(scenario, preset, blocks), replicas=machines.topology.devices // width,
    )  # fmt: skip


def _preset(scenario: ServingScenario, machines: Cluster) -> Preset:
    engine = scenario.serving.engine
    try:
        return preset_of(engine.name, machines.device, engine.version, scenario.serving.parallel)
    except ValueError as error:
        raise scenario.error("serving.engine.version", str(error)) from None


def _cluster(scenario: ServingScenario) -> Cluster:
    try:
        spec = load_cluster(scenario.path_of(scenario.cluster.profile))
        return cluster(spec, load_accelerator(spec.accelerator), scenario.cluster.devices)
    except ValueError as error:
        raise scenario.error("cluster.devices", str(error)) from None
    except ScenarioError as error:
        raise scenario.error("cluster.profile", error.problems[0].message) from None


def _deployment(scenario: ServingScenario, machines: Cluster, preset: Preset) -> Deployment:
    asked = scenario.serving.parallel
    link = machines.topology.scale_up.bandwidth_bytes_per_s
    software = on_device(load_software(scenario.software or preset.software), machines.device, link)
    cut = Cut(
        tp=asked.tp, dp=asked.dp, ep=asked.ep, pp=asked.pp,
        exchange=asked.exchange or preset.exchange, redundant_experts=asked.redundant_experts,
    )  # fmt: skip
    if cut.tp * cut.dp % cut.ep:
        raise scenario.error(
            "serving.parallel.ep", f"must divide tp * dp = {cut.tp * cut.dp}, the ranks of a stage"
        )

    def among(size: int, apart: int = 1) -> Network:
        return network(Group(size, apart), machines.topology, software)

    assert software.kernels is not None
    architecture = load_model(scenario.path_of(scenario.model))
    return Deployment(
        architecture=architecture, device=machines.device,
        chip=software.kernels.chip, kernels=software.kernels, software=software,
        networks={"tp": among(cut.tp), "ep": among(cut.tp * cut.dp)}, cut=cut,
        formats=formats(scenario.serving.formats), load=natural_load(architecture),
        overlap=scenario.serving.engine.overlap,
    )  # fmt: skip


def natural_load(architecture: Architecture) -> LoadLaw:
    """Return the load of experts that a finished model shows where nothing else is known."""
    kinds = (run.layer.ffn for run in architecture.decoder)
    experts = next((ffn.num_experts for ffn in kinds if isinstance(ffn, MoeFfn)), 1)
    return LoadLaw(law="dirichlet", cv=natural_cv(experts)) if experts > 1 else LoadLaw()


def formats(spec: FormatsSpec) -> Formats:
    """Return the formats of all components."""
    return Formats(
        attention=spec.attention or spec.weights, dense=spec.dense or spec.weights,
        experts=spec.experts or spec.weights, head=spec.head, cache=spec.cache,
    )  # fmt: skip


def cache_blocks(on: Deployment, preset: Preset, scenario: ServingScenario) -> int:
    """Return the blocks of cache that fit beside the weights; at least 0."""
    engine = scenario.serving.engine
    fraction = engine.memory_fraction or preset.memory_fraction
    memory, held = on.device.memory_capacity_bytes, weights(on).total
    reserve = on.software.reserved_memory_bytes
    room = fraction * memory - held - reserve
    if preset.memory_of == "free":
        room = fraction * (memory - held - reserve)
    elif preset.memory_of == "static":
        room = fraction * memory - held
    per_block = cache_bytes(on.architecture, on) * (engine.block_tokens or preset.block_tokens)
    return max(0, int(room / per_block))


def _rules(scenario: ServingScenario, preset: Preset, blocks: int) -> EngineRules:
    asked = scenario.serving.engine
    reserve = preset.reserve_output if asked.reserve_output is None else asked.reserve_output
    return EngineRules(
        batching=asked.batching or preset.batching,
        max_sequences=asked.max_sequences or preset.max_sequences,
        token_budget=asked.token_budget or preset.token_budget,
        block_tokens=asked.block_tokens or preset.block_tokens,
        balance_steps=asked.balance_steps or 0, blocks=blocks, reserve_output=reserve,
    )  # fmt: skip
