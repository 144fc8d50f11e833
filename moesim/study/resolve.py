"""From a scenario to everything a simulation needs, with every default and degree resolved."""

from dataclasses import dataclass, replace
from pathlib import Path

from moesim.cost.flash import slowdown
from moesim.cost.layout import Layout, shard
from moesim.cost.optimizer import optimizer_rule
from moesim.cost.software import Software, load_software, on_device
from moesim.cost.work import Batch, Job
from moesim.errors import ScenarioError
from moesim.hardware.device import Device
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import Cluster, cluster
from moesim.hardware.torus import chosen_slice
from moesim.model.architecture import Architecture
from moesim.model.named import load_model
from moesim.model.shapes import Shape
from moesim.spec.hardware import ClusterSpec
from moesim.spec.parallel import ParallelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.fp8 import quantisation
from moesim.study.order import check_order
from moesim.study.router_rules import under_rule
from moesim.study.sharding import full_sharding, offloaded_layers
from moesim.study.validity import check_batch, check_effort, check_layout, check_model
from moesim.study.validity_chunks import check_schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training run, resolved: what is trained, on what, cut how."""

    title: str
    """How reports call it."""
    scenario: Scenario
    architecture: Architecture
    cluster: Cluster
    software: Software
    layout: Layout
    job: Job
    micro_batches: int
    """Micro-batches per step and data-parallel rank."""


def resolve(scenario: Scenario) -> Training:
    """Return the run that `scenario` describes.

    Raises ScenarioError, with file, line and column, where keys contradict each other or the
    model; ModelError and ProfileError where these lack something.
    """
    return resolve_with(scenario, _model(scenario, "model", scenario.model))


def resolve_with(scenario: Scenario, architecture: Architecture) -> Training:
    """Return the run that `scenario` describes, with `architecture` for the model it names."""
    machines = chosen_machines(scenario)
    link = machines.topology.scale_up.bandwidth_bytes_per_s
    software = on_device(_software(scenario), machines.device, link)
    return training(scenario, architecture, machines, software, scenario.parallel)


def training(
    scenario: Scenario, architecture: Architecture, machines: Cluster, software: Software,
    parallel: ParallelSpec, *, key: str = "parallel",
) -> Training:  # fmt: skip
    """Return the run of `architecture` cut by `parallel`; `key` is where the layout stands."""
    check_model(scenario, architecture)
    architecture = under_rule(architecture, scenario.routing.gating)
    layout = resolve_layout(scenario, parallel, machines.topology.devices, key)
    check_order(scenario, layout, key)
    check_layout(scenario, architecture, layout, key)
    micro_batches = check_batch(scenario, layout, key)
    check_schedule(scenario, layout, micro_batches, key)
    check_effort(scenario, architecture, layout, micro_batches)
    return Training(
        title=architecture.name,
        scenario=scenario,
        architecture=architecture,
        cluster=machines,
        software=replace(
            software,
            cuda_graph=scenario.training.cuda_graph,
            attention_slowdown=slowdown(scenario.training.attention_kernel, machines.device),
        ),
        layout=layout,
        job=_job(scenario, architecture, layout, machines.device),
        micro_batches=micro_batches,
    )


def resolve_layout(scenario: Scenario, parallel: ParallelSpec, devices: int, key: str) -> Layout:
    """Return `parallel` with data parallelism taking what is left of the devices."""
    model_parallel = parallel.tp * parallel.cp * parallel.pp
    if devices % model_parallel:
        raise scenario.error(
            key, f"tp * cp * pp = {model_parallel} must divide the {devices} devices"
        )
    dp = devices // model_parallel
    stage, experts = parallel.tp * parallel.cp * dp, parallel.ep * parallel.expert_tp
    if stage % experts:
        raise scenario.error(
            f"{key}.ep",
            f"ep * etp = {experts} must divide tp * cp * dp = {stage}, the devices of a stage"
            + (" (etp left out equals tp)" if parallel.etp is None and parallel.tp > 1 else ""),
        )
    given = parallel.layout_chunks
    return Layout(
        tp=parallel.tp, pp=parallel.pp, vpp=parallel.vpp, cp=parallel.cp, ep=parallel.ep,
        etp=parallel.expert_tp, dp=dp, sequence_parallel=parallel.sequence_parallel,
        schedule="interleaved" if parallel.vpp > 1 and parallel.schedule == "1f1b"
        else parallel.schedule,
        dispatcher=parallel.dispatcher,
        dispatch_dtype="fp8" if parallel.dispatch_dtype == "fp8" else None,
        cp_comm=parallel.cp_comm,
        fsdp=full_sharding(scenario, parallel, dp, key),
        tensor_overlap=scenario.training.overlap.tensor_parallel,
        chunk_layers=None if given is None else tuple(one.count("t") for one in given),
        chunk_mtp=given[-1].count("m") if given else 0, rank_order=parallel.rank_order,
    )  # fmt: skip


def _job(scenario: Scenario, architecture: Architecture, layout: Layout, device: Device) -> Job:
    spec = scenario.training
    sequences = spec.micro_batch
    decoder = Shape(sequences=sequences, length=spec.sequence_length)
    encoder = None
    if architecture.encoder:
        encoder = Shape(sequences=sequences, length=spec.sequence_length)
        decoder = Shape(
            sequences=sequences,
            length=spec.target_length or spec.sequence_length,
            memory_length=spec.sequence_length,
        )
    rule = optimizer_rule(
        spec.optimizer.kind, spec.precision, spec.optimizer.gradient_dtype,
        distributed=spec.optimizer.distributed, offload=spec.optimizer.offload,
        moment_dtype=spec.optimizer.moment_dtype,
    )  # fmt: skip
    return Job(
        architecture=architecture,
        batch=Batch(decoder=decoder, encoder=encoder),
        shard=shard(
            layout,
            spec.precision,
            attention_kernel=spec.attention_kernel,
            cross_entropy=spec.cross_entropy,
            fusions=spec.fusions,
            quantisation=quantisation(scenario, device),
        ),
        recompute=spec.recompute,
        optimizer=rule,
        offload_layers=offloaded_layers(scenario, architecture.num_layers),
        exchange_overlap=spec.overlap.expert_exchange if architecture.is_moe else "none",
        masks=spec.permutation == "one_hot",
        sums_gradients=layout.fsdp is None,
        delayed_weights=spec.overlap.delay_weight_gradients,
    )


def placed(scenario: Scenario | ServingScenario, key: str, error: ScenarioError) -> ScenarioError:
    """Give a problem that names no file the place of `key` in the scenario."""
    if any(problem.file for problem in error.problems):
        return error
    return scenario.error(key, error.problems[0].message)


def _model(scenario: Scenario | ServingScenario, key: str, name: str) -> Architecture:
    try:
        return load_model(scenario.path_of(name))
    except ScenarioError as error:
        raise placed(scenario, key, error) from None


def baseline_model(scenario: Scenario | ServingScenario, key: str, name: str) -> Architecture:
    """Return the architecture of a named baseline; `key` is where it is named."""
    return _model(scenario, key, name)


def chosen_machines(scenario: Scenario | ServingScenario) -> Cluster:
    """Return the machines that a scenario chooses; ScenarioError where there are none such."""
    choice = scenario.cluster
    try:
        path = scenario.path_of(choice.profile)
        spec = load_cluster(path)
        accelerator = load_accelerator(spec.accelerator, Path(path).parent)
    except ScenarioError as error:
        raise placed(scenario, "cluster.profile", error) from None
    _check_domain(scenario, spec)
    try:
        _check_slice(scenario, spec)
        machines = cluster(
            spec, accelerator, choice.devices, domain=choice.devices_per_domain, shape=choice.slice
        )
    except ValueError as error:
        raise scenario.error("cluster.devices", str(error)) from None
    return _with_choice(scenario, machines)


def _check_slice(scenario: Scenario | ServingScenario, spec: ClusterSpec) -> None:
    """Raise ScenarioError where the devices cannot form slices of the shape that is asked for."""
    choice, whole = scenario.cluster, spec.scale_up.torus
    if choice.slice is None:
        return
    if whole is None:
        raise scenario.error(
            "cluster.slice", f"the scale-up network of {spec.name} is no torus; leave slice out"
        )
    try:
        chosen_slice(whole, choice.slice, choice.devices)
    except ValueError as error:
        raise scenario.error("cluster.slice", str(error)) from None


def _check_domain(scenario: Scenario | ServingScenario, spec: ClusterSpec) -> None:
    wanted, full = scenario.cluster.devices_per_domain, spec.scale_up.domain.value
    node = spec.devices_per_node.value
    if wanted is None:
        return
    if spec.scale_up.torus is not None or wanted > full or (wanted % node and node % wanted):
        what = "a torus, which is used whole" if spec.scale_up.torus else f"{full} devices"
        raise scenario.error(
            "cluster.devices_per_domain",
            f"a scale-up domain of {spec.name} is {what}, with {node} per node: leave the key out, "
            f"or take a multiple or a divisor of {node} up to {full}, not {wanted}",
        )


def _with_choice(scenario: Scenario | ServingScenario, machines: Cluster) -> Cluster:
    """Put what the scenario says about the machines in the place of what their profile says."""
    choice, topology = scenario.cluster, machines.topology
    if choice.price is not None:
        device = replace(machines.device, price_usd_per_device_hour=choice.price)
        machines = replace(machines, device=device)
    if choice.oversubscription is not None:
        if topology.leaf_devices is None:
            raise scenario.error(
                "cluster.oversubscription",
                f"the profile of {machines.name} does not say how many devices a leaf has: add "
                "scale_out.leaf_devices and scale_out.oversubscription to a copy of it",
            )
        topology = replace(topology, oversubscription=choice.oversubscription)
        machines = replace(machines, topology=topology)
    return machines


def _software(scenario: Scenario) -> Software:
    try:
        return load_software(scenario.path_of(scenario.software))
    except ScenarioError as error:
        raise placed(scenario, "software", error) from None
