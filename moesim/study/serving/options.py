"""What an engine may do beside plain decoding: graphs, guesses, experts outside device memory."""

from dataclasses import replace
from fractions import Fraction
from typing import TypedDict

from moesim.cost.serving.deployment import Deployment, Drafting, Offload
from moesim.cost.serving.residence import experts_of
from moesim.hardware.device import host_link_bytes_per_s
from moesim.model.named import load_model
from moesim.spec.engines.graph_sizes import captured
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.serving.speculative import SpeculativeSpec
from moesim.study.serving.engines import Preset

_FINE = 10**6
"""Largest denominator of the tokens that a step yields."""


class PaceRules(TypedDict, total=False):
    """The engine rules that speculative decoding sets."""

    tokens_per_step: tuple[int, int]
    checked_tokens: int


def pace(spec: SpeculativeSpec | None) -> PaceRules:
    """Return how many tokens a decode step yields and checks."""
    if spec is None:
        return {}
    return {
        "tokens_per_step": expected(spec).as_integer_ratio(),
        "checked_tokens": spec.draft_tokens + 1,
    }


def expected(spec: SpeculativeSpec) -> Fraction:
    """Return the tokens that a step yields on average."""
    return Fraction(spec.expected).limit_denominator(_FINE)


def with_options(on: Deployment, scenario: ServingScenario, preset: Preset) -> Deployment:
    """Return the deployment with what the scenario says of graphs, host and guesses."""
    asked = scenario.serving.engine
    sizes = asked.graph_sizes or captured(preset.name, preset.graph_batch)
    graphs = asked.graphs is not False  # engines without any launch from compiled code
    on = replace(on, graphs=graphs, graph_sizes=sizes if graphs else ())
    own = asked.async_scheduling
    on = replace(on, hidden_host=preset.async_scheduling if own is None else own)
    return _with_drafts(_with_offload(on, scenario), scenario)


def _with_offload(on: Deployment, scenario: ServingScenario) -> Deployment:
    spec, key = scenario.serving.offload, "serving.offload"
    if spec is None:
        return on
    experts = experts_of(on)
    if not experts:
        raise scenario.error(key, f"{on.architecture.name} has no experts to offload")
    if spec.resident_experts >= experts:
        raise scenario.error(
            f"{key}.resident_experts", f"must be below the {experts} experts of a layer"
        )
    rate = spec.bandwidth or host_link_bytes_per_s(on.device)
    return replace(
        on,
        offload=Offload(
            resident_experts=spec.resident_experts, cache=spec.cache, link_bytes_per_s=rate,
            prefetch=spec.prefetch, host_flop_per_s=spec.host_compute,
            host_bytes_per_s=spec.host_bandwidth,
        ),
    )  # fmt: skip


def _with_drafts(on: Deployment, scenario: ServingScenario) -> Deployment:
    spec, key = scenario.serving.engine.speculative, "serving.engine.speculative"
    if spec is None:
        return on
    if on.cut.dp > 1:
        raise scenario.error(
            key, "guesses on attention data parallel ranks (dp above 1) are not modelled"
        )
    if spec.mtp and not on.architecture.mtp_layers:
        raise scenario.error(
            f"{key}.mtp", f"{on.architecture.name} has no module for multi-token prediction"
        )
    model = None
    if spec.draft_model is not None:
        architecture = load_model(scenario.path_of(spec.draft_model))
        model = replace(on, architecture=architecture)
    return replace(
        on, drafting=Drafting(tokens=spec.draft_tokens, expected=expected(spec), model=model)
    )
