"""What the user writes about the load of experts: how unevenly tokens spread over them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from moesim.spec.base import Listed, Spec, or_one
from moesim.spec.load_presets import PRESETS

Cv = Annotated[float, Field(ge=0, le=20)]
Weight = Annotated[float, Field(gt=0, le=1e6)]
LossWeight = Annotated[float, Field(ge=0, le=1e3)]


def _as_tuple(value: Any) -> Any:
    """Read one figure as a list of one."""
    if value is None or isinstance(value, tuple):
        return value
    return tuple(value) if isinstance(value, list) else (value,)


Cvs = Annotated[
    tuple[Cv, ...],
    Field(max_length=1000, json_schema_extra=or_one),
    BeforeValidator(_as_tuple),
]


class BalancingSpec(Spec):
    """What balanced the router in training; the spread of the law follows from it.

    Only as far as a published figure reaches: what nobody measured is an error.
    """

    rule: Literal["shazeer", "switch", "deepseek_v3"]
    """shazeer: losses on importance and load (Shazeer et al. 2017, table 6); switch: the loss of
    Switch Transformers (less than 1 % dropped at factor 1.25 and alpha 0.01, so an upper bound);
    deepseek_v3: bias updates until the load is flat."""
    w_importance: LossWeight | None = None
    """Weight of the importance loss (shazeer)."""
    w_load: LossWeight | None = None
    """Weight of the load loss (shazeer)."""
    alpha: LossWeight | None = None
    """Weight of the balancing loss (switch): 0.01 was published."""

    @model_validator(mode="after")
    def _check(self) -> "BalancingSpec":
        for name, rule in (("w_importance", "shazeer"), ("w_load", "shazeer"), ("alpha", "switch")):
            given = getattr(self, name) is not None
            if self.rule == rule and not given:
                raise ValueError(f"rule {rule} needs {name}")
            if self.rule != rule and given:
                raise ValueError(f"{name} is read by the rule {rule} only")
        return self


class DomainSpec(Spec):
    """One kind of text in a mixture, with an expert load of its own."""

    domain: str | None = None
    """Its name in the trace (law trace)."""
    cv: Annotated[float, Field(ge=1e-6, le=20)] | None = None
    """Coefficient of variation of an expert's share in it (law lognormal)."""
    weight: Weight
    """Its share of the sequences, over the sum of all weights."""


class DriftSpec(Spec):
    """One domain dominates for some steps, then another, as a Markov chain (TensorRT-LLM
    tech_blog/blog4: hot experts stay for tens to hundreds of iterations).
    """

    dwell_steps: Annotated[float, Field(ge=1, le=1e9)]
    """Mean number of steps until the dominating domain is drawn anew, by the weights."""
    dominance: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of a step's sequences that are of its dominating domain; the others follow the
    weights."""


class LoadSpec(Spec):
    """How unevenly tokens spread over the experts of a layer."""

    preset: (
        Literal[
            "forced_balance", "training_with_balancing_loss", "deepseek_r1_inference",
            "deepseek_v2_lite_inference", "olmoe_inference", "mixtral_inference",
        ]
        | None
    ) = None  # fmt: skip
    """A law and its spread by name, with a source and a range that the report shows, in place of
    law and cv."""
    law: Literal["even", "uniform", "dirichlet", "lognormal", "zipf", "power_law", "trace"] = "even"
    """even: forced balance; uniform: each token picks at random; dirichlet and lognormal: some
    experts are drawn more often than others; zipf and power_law (AIConfigurator's): by an exponent,
    for comparison, as real loads fit neither; trace: as measured, from a file."""
    cv: Cvs = ()
    """Coefficient of variation of an expert's share, for dirichlet and lognormal; a list is taken
    layer by layer, from the start again where it ends. Measured: 0.02 to 0.2 in training with
    balancing losses (Shazeer 2017, table 6), 0.4 to 1.3 at inference; 1.42 is the lognormal that
    fits DeepSeek-R1 (TensorRT-LLM tech_blog/blog4, table 1), whose layers differ fivefold."""
    exponent: Annotated[float, Field(ge=0, le=10)] | None = None
    """Exponent of zipf and power_law; AIConfigurator takes 1.01 and 1.2."""
    balancing: BalancingSpec | None = None
    """What balanced the router in training, in place of cv; without a law, dirichlet."""
    mixture: Annotated[Listed[DomainSpec], Field(max_length=32)] = ()
    """Domains whose sequences a batch mixes, each with expert shares of its own (laws lognormal and
    trace)."""
    drift: DriftSpec | None = None
    """How the dominating domain of a mixture changes from step to step."""
    trace: str | None = None
    """File of law trace: token ids (.npz: <domain>_ids [layers, tokens, k], <domain>_seq_len),
    counts (.csv: model, checkpoint, domain, layer, selection, expert, count), or the routed experts
    that vLLM and SGLang return (.jsonl: their responses; .npy: [tokens, layers, k]). The n-th MoE
    layer takes the n-th layer of the file, from the start again where it has fewer."""
    domain: str | None = None
    """Domain of the trace; left out, all of them in equal parts."""
    detail: Literal["shares", "profile", "lognormal", "dirichlet", "replay"] | None = None
    """What is kept of a trace: the share of every expert (left out), the sorted shares dealt to
    experts anew, only their spread, drawn lognormal or Dirichlet, or the tokens themselves, from a
    sequence drawn at random on."""
    burst: Annotated[float, Field(ge=1, le=100)] | None = None
    """By what factor the counts of a batch scatter more than independent choices do, since
    neighbours in a text choose alike: 1.7 within one task (DeepSeek-V2-Lite routing data of
    deepseek-ai/ESFT @579a7711); left out, they are independent."""
    per: Literal["step", "micro_batch"] | None = None
    """What draws tokens of its own: each micro_batch (left out), as trainers route them, the
    popularity of the experts being that of the step; or all micro-batches of a step see the same
    counts. A capacity counts over a micro-batch in both."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Put the law and spread of a preset, and the law of trained balance, in their places."""
        if not isinstance(data, dict):
            return data
        preset = PRESETS.get(data["preset"]) if isinstance(data.get("preset"), str) else None
        if preset is not None:
            own = {"law": preset.law} | ({"cv": preset.cv} if preset.cv is not None else {})
            for name in ("law", "cv", "exponent", "balancing", "mixture", "trace"):
                given = data.get(name)
                if given not in (None, (), []) and _as_tuple(given) != _as_tuple(own.get(name)):
                    raise ValueError(f"preset {data['preset']} says the law; leave {name} out")
            return {**data, **own}
        if data.get("balancing") is not None and "law" not in data:
            return {**data, "law": "dirichlet"}
        return data

    @model_validator(mode="after")
    def _check(self) -> "LoadSpec":
        spread = self.law in ("dirichlet", "lognormal")
        ways = [name for name in ("cv", "balancing", "mixture") if getattr(self, name)]
        if spread and len(ways) != 1:
            raise ValueError(
                f"law {self.law} needs cv, the coefficient of variation of a share, or in its place"
                " one of balancing and mixture"
            )
        for name in ("cv", "balancing"):
            if not spread and name in ways:
                raise ValueError(f"law {self.law} takes no {name}; dirichlet and lognormal do")
        if any(0 < cv < 1e-6 for cv in self.cv):
            raise ValueError("cv must be 0 or at least 0.000001")
        takes = self.law in ("zipf", "power_law")
        if takes != (self.exponent is not None):
            said = "needs" if takes else "takes no"
            raise ValueError(f"law {self.law} {said} exponent; zipf and power_law do")
        if self.burst is not None and self.law == "even":
            raise ValueError("law even forces the same counts always; burst needs another law")
        if self.per is not None and self.law == "even":
            raise ValueError("law even forces the same counts always; per needs another law")
        return self

    @model_validator(mode="after")
    def _check_mixture(self) -> "LoadSpec":
        if self.drift is not None and not self.mixture:
            raise ValueError("drift needs mixture, the domains that dominate in turn")
        if not self.mixture:
            return self
        key = {"trace": "domain", "lognormal": "cv"}.get(self.law)
        if key is None:
            raise ValueError("mixture needs law lognormal or trace")
        other = "cv" if key == "domain" else "domain"
        for one in self.mixture:
            if getattr(one, key) is None or getattr(one, other) is not None:
                raise ValueError(f"a domain of law {self.law} has {key} and weight, not {other}")
        if len(self.mixture) < 2:
            raise ValueError("a mixture has two domains at least")
        if self.domain is not None:
            raise ValueError("mixture names the domains; leave domain out")
        return self

    @model_validator(mode="after")
    def _check_trace(self) -> "LoadSpec":
        if self.law == "trace" and self.trace is None:
            raise ValueError("law trace needs trace, the file")
        for name in ("trace", "domain", "detail"):
            if self.law != "trace" and getattr(self, name) is not None:
                raise ValueError(f"{name} is read by law trace only")
        if self.detail == "replay" and self.burst is not None:
            raise ValueError("replayed tokens are as bursty as they were; leave burst out")
        return self
