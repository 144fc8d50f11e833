"""The dense model to compare with, on the same devices: a derived twin, or a named one."""

from collections.abc import Iterator
from dataclasses import replace

from moesim.errors import ScenarioError
from moesim.model.architecture import Architecture, DenseFfn, FfnKind, Layer, MoeFfn, Run, Stack
from moesim.spec.parallel import ParallelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.schedule_names import FOLDED
from moesim.study.bound import bound
from moesim.study.findings import Baseline
from moesim.study.outcome import Outcome
from moesim.study.resolve import Training, baseline_model, training
from moesim.study.simulate import simulate

EQUAL = {
    "active_params": "equal active parameters",
    "flop": "equal FLOP per token",
    "total_params": "equal total parameters",
}
"""What a dense twin has in common with its mixture of experts, in words."""


def dense_twin(architecture: Architecture, equal: str) -> Architecture:
    """Return `architecture` with a dense FFN in place of each mixture of experts.

    active_params: as wide as the experts a token passes, shared ones included. flop: wider by
    what the router computes. total_params: as wide as all experts together.
    """
    return replace(
        architecture,
        name=f"dense twin of {architecture.name}",
        decoder=_dense(architecture.decoder, equal),
        encoder=_dense(architecture.encoder, equal),
    )


def _dense(stack: Stack, equal: str) -> Stack:
    return tuple(Run(_dense_layer(run.layer, equal), run.count) for run in stack)


def _dense_layer(layer: Layer, equal: str) -> Layer:
    if not isinstance(layer.ffn, MoeFfn):
        return layer
    return replace(layer, ffn=_dense_ffn(layer.ffn, equal))


def _dense_ffn(ffn: MoeFfn, equal: str) -> FfnKind:
    beside = ffn.shared_width + ffn.parallel_dense_width
    width = beside + ffn.expert_width * ffn.top_k
    if equal == "total_params":
        width = beside + ffn.expert_width * ffn.num_experts
    if equal == "flop":
        # the router is one [hidden, experts] product; a gated FFN has three per unit of width
        # in whole eights, so that tensor parallelism can cut it
        width = 8 * round((width + ffn.num_experts / (3 if ffn.gated else 2)) / 8)
    return DenseFfn(width=width, gated=ffn.gated, bias=ffn.expert_bias)


def baseline(scenario: Scenario, run: Training, number: int) -> Baseline:
    """Return the simulated baseline with that number in the scenario's list."""
    spec, key = scenario.baseline[number], f"baseline.{number}"
    if spec.model is not None:
        architecture = baseline_model(scenario, f"{key}.model", spec.model)
        relation = "the model you named"
    elif not run.architecture.is_moe:
        raise scenario.error(
            f"{key}.equal", f"{run.architecture.name} has no experts to derive a dense twin from"
        )
    else:
        assert spec.equal is not None
        architecture, relation = dense_twin(run.architecture, spec.equal), EQUAL[spec.equal]
    if spec.parallel is not None:
        chosen = training(
            scenario, architecture, run.cluster, run.software, spec.parallel, key=f"{key}.parallel"
        )
        return Baseline(simulate(chosen), relation)
    return Baseline(_fastest(scenario, architecture, run, key), relation)


def _fastest(scenario: Scenario, architecture: Architecture, run: Training, key: str) -> Outcome:
    """Return the fastest of the usual layouts that fits; if none fits, the one nearest to it."""
    bounds = [bound(candidate) for candidate in _candidates(scenario, architecture, run)]
    if not bounds:
        raise scenario.error(
            key, f"none of the usual layouts suits {architecture.name}; give parallel"
        )
    fitting = sorted((one for one in bounds if one.fits), key=lambda one: one.step_s)
    if fitting:
        # the bound leaves out what is hidden: let the nearest few run
        outcomes = [simulate(one.run) for one in fitting[:4]]
        return min(outcomes, key=lambda outcome: outcome.metrics.step_s)
    return simulate(min(bounds, key=lambda one: one.peak_bytes).run)


def _candidates(
    scenario: Scenario, architecture: Architecture, run: Training
) -> Iterator[Training]:
    """Yield the run's own layout without experts first, then powers of two for tp and pp."""
    own = run.scenario.parallel
    domain = run.cluster.topology.scale_up.domain_size
    degrees = [1, 2, 4, 8, 16, 32]
    seen: set[tuple[int, int, int]] = set()
    sizes = [(own.tp, own.pp, own.vpp)]
    sizes += [(tp, pp, 1) for tp in degrees if tp <= min(8, domain) for pp in degrees]
    for tp, pp, vpp in sizes:
        if (tp, pp, vpp) in seen:
            continue
        seen.add((tp, pp, vpp))
        parallel = ParallelSpec(
            tp=tp, pp=pp, vpp=vpp, cp=own.cp, ep=1, etp=1,
            sequence_parallel=own.sequence_parallel,
            schedule="1f1b" if own.schedule in FOLDED and vpp != own.vpp else own.schedule,
        )  # fmt: skip
        try:
            yield training(
                scenario, architecture, run.cluster, run.software, parallel, key="baseline"
            )
        except ScenarioError:
            continue  # a layout that does not suit this model: not the user's mistake
