"""From a serving scenario to a deployment, its costs and its engine's rules."""

from dataclasses import dataclass

from moesim.cost.collectives import Network, network
from moesim.cost.serving.capacity import Limits, Memory, memory
from moesim.cost.serving.deployment import Cut, Deployment, Formats
from moesim.cost.software import load_software, on_device
from moesim.errors import ScenarioError
from moesim.hardware.groups import Group
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import Cluster, cluster
from moesim.model.named import load_model
from moesim.moe.loads import LoadLaw
from moesim.sim.serving.rules import EngineRules
from moesim.spec.serving.engine import EngineSpec, FormatsSpec
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.engines import PRESETS, Preset
from moesim.study.serving.options import pace, with_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A serving run, resolved."""

    scenario: ServingScenario
    cluster: Cluster
    deployment: Deployment
    preset: Preset
    rules: EngineRules
    memory: Memory
    replicas: int


def resolve(scenario: ServingScenario) -> Serving:
    """Return the run that `scenario` describes.

    Raises ScenarioError where keys contradict each other or the model; ModelError and ProfileError
    where these lack something.
    """
    machines = _cluster(scenario)
    preset = PRESETS[scenario.serving.engine.name](machines.device)
    on = _deployment(scenario, machines, preset)
    width = on.cut.tp * on.cut.dp * on.cut.pp
    if machines.topology.devices % width:
        raise scenario.error(
            "serving.parallel",
            f"tp * dp * pp = {width} must divide the {machines.topology.devices} devices",
        )
    held = memory(on, limits(preset, scenario.serving.engine))
    return Serving(
        scenario=scenario, cluster=machines, deployment=on, preset=preset,
        rules=_rules(scenario, preset, held.blocks), memory=held,
        replicas=machines.topology.devices // width,
    )  # fmt: skip


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
        exchange=asked.exchange or preset.exchange,
    )  # fmt: skip
    if cut.tp * cut.dp % cut.ep:
        raise scenario.error(
            "serving.parallel.ep", f"must divide tp * dp = {cut.tp * cut.dp}, the ranks of a stage"
        )

    def among(size: int, apart: int = 1) -> Network:
        return network(Group(size, apart), machines.topology, software)

    assert software.kernels is not None
    plain = Deployment(
        architecture=load_model(scenario.path_of(scenario.model)), device=machines.device,
        chip=software.kernels.chip, kernels=software.kernels, software=software,
        networks={"tp": among(cut.tp), "ep": among(cut.tp * cut.dp)}, cut=cut,
        formats=formats(scenario.serving.formats), load=LoadLaw(),
    )  # fmt: skip
    return with_options(plain, scenario, preset)


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


def _rules(scenario: ServingScenario, preset: Preset, blocks: int) -> EngineRules:
    asked = scenario.serving.engine
    reserve = preset.reserve_output if asked.reserve_output is None else asked.reserve_output
    return EngineRules(
        batching=asked.batching or preset.batching,
        max_sequences=asked.max_sequences or preset.max_sequences,
        token_budget=asked.token_budget or preset.token_budget,
        block_tokens=asked.block_tokens or preset.block_tokens,
        blocks=blocks, reserve_output=reserve,
        prefix_caching=asked.prefix_caching is not False, **pace(asked.speculative),
    )  # fmt: skip
