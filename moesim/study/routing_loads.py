"""The load of experts as a scenario asks for it: laws, presets, balancing, domains, traces."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from moesim import rng
from moesim.errors import ModelError
from moesim.model.architecture import Architecture, MoeFfn
from moesim.moe.domains import Drift, Mixture, domain_shares, domain_steps, mixed
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.hashed import hash_load, zipf
from moesim.moe.gating.spread import SPREADS, Spread
from moesim.moe.loads import LoadLaw
from moesim.moe.mixed_load import MixedLoad
from moesim.moe.trace_law import law_of, mixture_of
from moesim.spec.expert_load import LoadSpec
from moesim.spec.load_presets import PRESETS
from moesim.spec.scenario import Scenario
from moesim.study.router_rules import gate_of
from moesim.study.traces import Measured, of_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One MoE layer of a run in one step, as far as its load depends on it."""

    scenario: Scenario
    architecture: Architecture
    ffn: MoeFfn
    place: int
    """How many layers with experts come before it."""
    step: int
    tokens: int
    group_tokens: int
    sequence_tokens: int

    @property
    def load(self) -> LoadSpec:
        """What the scenario says of the load."""
        return self.scenario.routing.load


def layer_law(drawing: Drawing) -> LoadLaw:
    """Return the load law of one layer as a record; domains and traces have shares of their own."""
    load = drawing.load
    cv = load.cv[drawing.place % len(load.cv)] if load.cv else 0.0
    if load.balancing is not None:
        cv = trained_spread(drawing).cv
    return LoadLaw(law=load.law, cv=cv, exponent=load.exponent or 0.0, tokens=drawing.tokens)


def trained_spread(drawing: Drawing) -> Spread:
    """Return the spread that a balancing knob gave; ScenarioError where nobody measured it."""
    balancing = drawing.load.balancing
    if balancing is None:
        raise ValueError("the scenario names no balancing")
    names = {"shazeer": ("w_importance", "w_load"), "switch": ("alpha",)}
    knobs = tuple(getattr(balancing, name) for name in names.get(balancing.rule, ()))
    if balancing.rule == "switch":
        knobs = (*knobs, drawing.ffn.num_experts, drawing.group_tokens)
    try:
        return _spread(balancing.rule, knobs)
    except ModelError as error:
        key = f"routing.load.balancing.{names[balancing.rule][0]}"
        raise drawing.scenario.error(key, str(error)) from None


@lru_cache(maxsize=256)
def _spread(rule: str, knobs: tuple[float, ...]) -> Spread:
    return SPREADS[rule](*knobs)


def own_shares(drawing: Drawing) -> tuple[float, ...]:
    """Return the shares of the experts where they are known; empty where they are drawn.

    Measured ones come from a trace; a hash router's follow from the frequencies of token ids.
    """
    gating = drawing.scenario.routing.gating
    if gating.rule == "hash":
        ffn, exponent = drawing.ffn, gating.zipf_exponent
        return _hashed(
            gate_of(gating, ffn), drawing.architecture.vocab, 1.0 if exponent is None else exponent
        )
    if drawing.load.law != "trace" or _is_mixed(drawing.load):
        return ()
    found = mixed(_measured_mixture(drawing, _measured(drawing), ()))[0]
    return tuple(float(share) for share in found)


@lru_cache(maxsize=64)
def _hashed(gate: Gate | None, vocabulary: int, exponent: float) -> tuple[float, ...]:
    load = hash_load(gate or Gate(experts=1), zipf(vocabulary, exponent))
    return tuple(float(share) for share in load)


def _is_mixed(load: LoadSpec) -> bool:
    return bool(load.mixture) or load.detail == "replay"


def _measured(drawing: Drawing) -> Measured:
    return of_layer(drawing.scenario, drawing.architecture, drawing.ffn, drawing.place)


def _measured_mixture(drawing: Drawing, measured: Measured, weights: tuple[float, ...]) -> Mixture:
    """Return the domains of a layer, as much of their shares kept as the detail says."""
    detail = drawing.load.detail or "shares"
    law = law_of(measured, "shares" if detail == "replay" else detail, weights or None)
    stream = rng.stream(drawing.scenario.seed, f"trace/MoE layer {drawing.place}")
    return mixture_of(law, [stream], sequence_tokens=drawing.sequence_tokens, in_order=False)


def mixed_load(drawing: Drawing) -> MixedLoad | None:
    """Return the domains of a layer, their shares the same in all steps; None where there are none.

    Which domain a sequence is of comes from a stream of the step that all layers share.
    """
    load, seed = drawing.load, drawing.scenario.seed
    if not _is_mixed(load):
        return None
    weights = step_weights(drawing.scenario, drawing.step)
    measured: Measured = ()
    if load.law == "trace":
        measured = _measured(drawing)
        mixture = _measured_mixture(drawing, measured, weights)
    else:
        stream = rng.stream(seed, f"domains/MoE layer {drawing.place}")
        cvs = [one.cv or 0.0 for one in load.mixture]
        mixture = Mixture(
            shares=domain_shares(cvs, drawing.ffn.num_experts, [stream]),
            weights=weights,
            sequence_tokens=drawing.sequence_tokens,
        )
    return MixedLoad(
        mixture=mixture,
        composition=(seed, f"domains/step {drawing.step}"),
        replayed=measured if load.detail == "replay" else (),
    )


def step_weights(scenario: Scenario, step: int) -> tuple[float, ...]:
    """Return the share of each domain among the sequences of a step; empty without a mixture."""
    load = scenario.routing.load
    weights = np.array([one.weight for one in load.mixture])
    if not len(weights):
        return ()
    weights /= weights.sum()
    if load.drift is not None:
        dominance = load.drift.dominance
        weights *= 1 - dominance
        weights[dominating(scenario, step)] += dominance
    return tuple(float(weight) for weight in weights)


def dominating(scenario: Scenario, step: int) -> int:
    """Return the place of the domain that dominates a step, under a drift of domains."""
    load = scenario.routing.load
    if load.drift is None:
        raise ValueError("the scenario names no drift")
    drift = Drift(
        weights=tuple(one.weight for one in load.mixture), stay=1 - 1 / load.drift.dwell_steps
    )
    return int(domain_steps(drift, step + 1, rng.stream(scenario.seed, "domains/drift"))[step])


def domain_names(scenario: Scenario) -> tuple[str, ...]:
    """Return what the domains of a mixture are called: by name, or by the spread of their law."""
    mixture = scenario.routing.load.mixture
    return tuple(one.domain or f"{n}: cv {one.cv:g}" for n, one in enumerate(mixture, 1))


def sentences(drawing: Drawing) -> list[str]:
    """Return where the load of a run comes from, in words: figures, sources and their range."""
    load = drawing.load
    said = [_law_in_words(load)]
    if load.preset is not None:
        preset = PRESETS[load.preset]
        said.append(
            f"Preset {load.preset} ({preset.kind}): {preset.source}. It holds for "
            f"{preset.validity}."
        )
    if load.balancing is not None:
        said.append(_trained_in_words(drawing))
    if load.mixture:
        said.append(_mixture_in_words(drawing.scenario))
    if load.burst is not None:
        said.append(f"Counts scatter {load.burst:g} times as independent choices would (burst).")
    return said


def _law_in_words(load: LoadSpec) -> str:
    if load.law == "even":
        return "Loads are forced even: every expert gets the same number of tokens."
    if load.detail == "replay":
        return f"Tokens are replayed from {load.trace}, from a sequence drawn at random on."
    if load.law == "trace":
        return f"Loads are those measured in {load.trace}, {load.detail or 'shares'} kept."
    spread = ""
    if load.cv:
        listed = ", ".join(f"{cv:g}" for cv in load.cv[:8]) + (", …" if len(load.cv) > 8 else "")
        layers = " (layer by layer)" if len(load.cv) > 1 else ""
        spread = f" with a coefficient of variation of {listed}{layers}"
    if load.exponent is not None:
        spread = f" with the exponent {load.exponent:g}"
    return f"Loads are drawn from a {load.law} law{spread}; the law is the scenario's assumption."


def _trained_in_words(drawing: Drawing) -> str:
    spread = trained_spread(drawing)
    bound = "at most " if spread.is_bound else ""
    return f"Balancing left a coefficient of variation of {bound}{spread.cv:.3g}: {spread.source}."


def _mixture_in_words(scenario: Scenario) -> str:
    weights = step_weights(scenario, 0)
    drift = scenario.routing.load.drift
    names = domain_names(scenario)
    parts = ", ".join(f"{name} ({w:.0%})" for name, w in zip(names, weights, strict=True))
    if drift is None:
        return f"Sequences are of {len(weights)} domains: {parts}."
    steps = min(8, scenario.training.steps)
    order = ", ".join(names[dominating(scenario, step)] for step in range(steps))
    return (
        f"In the first step sequences are of {parts}. Domains dominate in turn, a new one being "
        f"drawn every {drift.dwell_steps:g} steps in the mean; steps from the first on: {order}."
    )
