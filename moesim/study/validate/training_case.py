"""From a training case to a run that can be simulated."""

from dataclasses import dataclass
from typing import Any

from moesim.cost.software import load_software, on_device
from moesim.errors import MoesimError, ScenarioError
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import cluster
from moesim.model.architecture import Architecture, MoeFfn
from moesim.spec.cases import Case, CaseFile, Words
from moesim.spec.scenario import Scenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from moesim.study.bound import bound
from moesim.study.resolve import Training, training
from moesim.study.validate.calibrated import calibration_of, with_calibration
from moesim.study.validate.context import read_context
from moesim.study.validate.machines import cluster_of, network_rate, read_domain, with_network
from moesim.study.validate.models import architecture
from moesim.study.validate.options import (
    Reading,
    read_dispatcher,
    read_graphs,
    read_loss,
    read_overlap,
    read_precision,
    read_recompute,
    read_rest,
    read_routing,
)
from moesim.study.validate.sharding import (
    lighter,
    read_offload,
    read_sharding,
    read_tpu_batch,
)
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.tpu import circular_pipeline, software_of
from moesim.study.validate.trainers import Trainer, read_trainer, trainer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A case as a run, and what had to be assumed."""

    run: Training
    chips: int
    assumed: tuple[str, ...]


def software_name(case: Case) -> str:
    """Return the software profile of a case's trainer; Megatron-LM's where none is known."""
    trainer = trainer_of(case)
    return software_of(case, trainer.software if trainer else "megatron")


def map_training(case: Case, file: CaseFile) -> Mapped:
    """Return the run that `case` describes; SkippedError with the reason where there is none."""
    network = architecture(case, file)
    reading = Reading()
    for read in (read_precision, read_recompute, read_dispatcher, read_overlap, read_rest):
        read(case, reading)
    ffns = [run.layer.ffn for run in network.decoder]
    experts = next((ffn.num_experts for ffn in ffns if isinstance(ffn, MoeFfn)), 0)
    if experts:
        read_routing(case, reading, experts)
    trainer = trainer_of(case)
    if trainer is not None:
        read_trainer(case, reading, trainer)
        _read_habits(trainer, reading)
    read_loss(case, reading, fused=trainer is None or trainer.fused_loss)
    if trainer is not None and reading.training.get("cross_entropy") == "unfused":
        reading.training["cross_entropy"] = trainer.loss
    read_graphs(case, reading, compiled=trainer is not None and trainer.compiled)
    machines = cluster_of(case, file)
    chips = read_layout(case, reading)
    circular_pipeline(case, reading, network.num_layers)
    read_offload(case, reading, network.num_layers)
    if trainer is not None and trainer.narrow_dispatch and reading.training["precision"] == "fp8":
        reading.parallel["dispatch_dtype"] = "fp8"
        if trainer.note not in reading.assumed:
            reading.assume(trainer.note)
    data = {
        "name": "case",
        "model": case.text("model"),
        "cluster": read_domain(machines, chips, reading),
        "software": software_name(case),
        "parallel": reading.parallel,
        "training": reading.training,
        "routing": reading.routing,
    }
    said = calibration_of(case, file), network_rate(case, file)
    try:
        run = _run(data, network, *said)
        while not bound(run).fits and lighter(reading):
            run = _run(data, network, *said)
        return Mapped(
            run=run,
            chips=chips,
            assumed=tuple(reading.assumed),
        )
    except ScenarioError as error:
        raise SkippedError(
            "; ".join(f"{p.path}: {p.message}" for p in error.problems[:3])
        ) from None
    except MoesimError as error:
        raise SkippedError(str(error)) from None


def _read_habits(trainer: Trainer, reading: Reading) -> None:
    """Take what the trainer's documents say where the case's own words say nothing."""
    habits = (("fp8_recipe", trainer.fp8_recipe), ("recompute", list(trainer.recompute)))
    for key, habit in habits:
        if habit and key in reading.unstated:
            reading.training[key] = habit
            reading.unstated.discard(key)
            guesses = [one for one in reading.assumed if key.replace("_", " ") in one]
            for one in guesses:
                reading.assumed.remove(one)


def _run(
    data: dict[str, Any], network: Architecture, measured: Words | None, rate: float | None
) -> Training:
    scenario = build(Scenario, Document(data))
    spec = load_cluster(scenario.cluster.profile)
    try:
        machines = cluster(
            spec,
            load_accelerator(spec.accelerator),
            scenario.cluster.devices,
            domain=scenario.cluster.devices_per_domain,
        )
    except ValueError as error:
        raise SkippedError(f"cluster: {error}") from None
    machines = with_network(machines, rate)
    link = machines.topology.scale_up.bandwidth_bytes_per_s
    software = on_device(load_software(scenario.software), machines.device, link)
    if measured is not None:
        software = with_calibration(software, measured, machines.topology)
    return training(scenario, network, machines, software, scenario.parallel)


def read_layout(case: Case, reading: Reading) -> int:
    """Read degrees and batches, and return the number of devices."""
    cut = case.part("parallel")
    for name in ("tp", "pp", "vpp", "cp", "ep", "etp"):
        value = cut.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            reading.parallel[name] = value
    read_context(case, reading)
    model_parallel = 1
    for name in ("tp", "pp", "cp"):
        model_parallel *= reading.parallel.get(name, 1)
    chips = case.words.get("chips")
    _read_batch(case, cut, reading, chips, model_parallel)
    if chips is None:
        batch, micro = reading.training["global_batch"], reading.training["micro_batch"]
        chips = batch // micro * model_parallel
        reading.assume(f"chips not stated: {chips}, so that no gradients are accumulated")
    if not isinstance(chips, int):
        raise SkippedError(f"chips '{chips}' is no number")
    read_sharding(case, reading, chips // model_parallel)
    return chips


def _read_batch(case: Case, cut: Words, reading: Reading, chips: Any, model_parallel: int) -> None:
    if read_tpu_batch(case, reading, chips):
        return
    length = cut.get("seq")
    if not isinstance(length, int):
        raise SkippedError("no sequence length is given")
    reading.training["sequence_length"] = length
    micro = cut.get("mbs")
    batch = cut.get("gbs")
    if batch is None and micro and isinstance(chips, int):
        replicas = chips // model_parallel
        batch = micro * replicas * (cut.get("ga") or 1)
    if batch is None:
        raise SkippedError("no global batch is given")
    if micro is None:
        micro = 1
        reading.assume("micro batch not stated: 1")
    reading.training["global_batch"] = batch
    reading.training["micro_batch"] = micro
