"""What the router does: who is chosen, how evenly, where experts lie, what exceeds the capacity."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from moesim.spec.base import Listed, Spec

Count = Annotated[int, Field(ge=1, le=10**6)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[float, Field(ge=0, le=1e6)]


class LevelSpec(Spec):
    """One level of a hierarchy of experts, from the top."""

    fanout: Count
    """Parts into which each part of the level above splits; at the last level, its experts."""
    limit: Count
    """Parts that a token may enter; with a shared router, experts in all at the last level."""
    link: Literal["scale_up", "scale_out"] | None = None
    """Network that tokens cross to reach these parts; left out: scale_up at the last level, at
    others scale_out where the expert-parallel ranks lie in several scale-up domains."""


class GatingSpec(Spec):
    """How a token chooses its experts."""

    rule: (
        Literal[
            "softmax_topk", "noisy_topk", "gshard_top2", "switch_top1", "st_moe", "expert_choice",
            "base", "deepseek_v2", "deepseek_v3", "hierarchical", "mtf_v2",
        ]
        | None
    ) = None  # fmt: skip
    """Name of the rule; left out: softmax_topk, and group limits of the model hold for the fan-out
    alone."""
    second_policy: (
        Literal["all", "none", "threshold", "random_gshard", "random_mtf", "sampling"] | None
    ) = None
    """Whether the second of two experts gets its token (gshard_top2, mtf_v2): three code bases
    differ; left out: all."""
    threshold: Share | None = None
    """What threshold and random_mtf compare the second weight with; left out: 0.2."""
    noise: Size | None = None
    """Standard deviation of the noise on a logit (noisy_topk)."""
    sharpness: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """How far logits lie apart: it moves weights, not who is chosen (gshard_top2, mtf_v2)."""
    levels: Annotated[Listed[LevelSpec], Field(max_length=4)] = ()
    """The hierarchy from the top (hierarchical, mtf_v2)."""
    shared_router: bool | None = None
    """Whether one router's scores serve all levels, as in node-limited routing (hierarchical)."""

    @model_validator(mode="after")
    def _check(self) -> "GatingSpec":
        for name, rules in _READ_BY.items():
            if getattr(self, name) not in (None, ()) and self.rule not in rules:
                raise ValueError(f"{name} is read by the rule {' and '.join(rules)} only")
        if self.threshold is not None and self.second_policy not in ("threshold", "random_mtf"):
            raise ValueError("threshold is read by second_policy threshold and random_mtf only")
        return self


_TOP2 = ("gshard_top2", "mtf_v2")
_READ_BY = {
    "second_policy": _TOP2,
    "threshold": _TOP2,
    "sharpness": _TOP2,
    "noise": ("noisy_topk",),
    "levels": ("hierarchical", "mtf_v2"),
    "shared_router": ("hierarchical",),
}
"""Which rules read a key."""


class LoadSpec(Spec):
    """How unevenly tokens spread over the experts of a layer."""

    law: Literal["even", "uniform", "dirichlet", "lognormal", "trace"] = "even"
    """even: forced balance; uniform: each token picks at random; dirichlet and lognormal: some
    experts are drawn more often than others; trace: as measured, from a file."""
    cv: Annotated[float, Field(ge=0, le=20)] | None = None
    """Coefficient of variation of an expert's share, for dirichlet and lognormal. Measured: 0.02
    to 0.2 in training with balancing losses (Shazeer 2017, table 6), 0.4 to 1.3 at inference; 1.42
    is the lognormal that fits DeepSeek-R1 (TensorRT-LLM tech_blog/blog4, table 1)."""
    trace: str | None = None
    """File of law trace: token ids (.npz: <domain>_ids [layers, tokens, k], <domain>_seq_len) or
    counts (.csv: model, checkpoint, domain, layer, selection, expert, count). The n-th MoE layer
    takes the n-th layer of the file, from the start again where it has fewer."""
    domain: str | None = None
    """Domain of the trace; left out, all of them in equal parts."""
    detail: Literal["shares", "profile", "lognormal", "dirichlet"] | None = None
    """What is kept of a trace: the share of every expert (left out), the sorted shares dealt to
    experts anew, or only their spread, drawn lognormal or Dirichlet."""
    burst: Annotated[float, Field(ge=1, le=100)] | None = None
    """By what factor the counts of a batch scatter more than independent choices do, since
    neighbours in a text choose alike: 1.7 within one task (DeepSeek-V2-Lite routing data of
    deepseek-ai/ESFT @579a7711); left out, they are independent."""

    @model_validator(mode="after")
    def _check(self) -> "LoadSpec":
        needs = self.law in ("dirichlet", "lognormal")
        if needs and self.cv is None:
            raise ValueError(f"law {self.law} needs cv, the coefficient of variation of a share")
        if not needs and self.cv is not None:
            raise ValueError(f"law {self.law} takes no cv; dirichlet and lognormal do")
        if self.cv is not None and 0 < self.cv < 1e-6:
            raise ValueError("cv must be 0 or at least 0.000001")
        return self._check_trace()

    def _check_trace(self) -> "LoadSpec":
        if self.law == "trace" and self.trace is None:
            raise ValueError("law trace needs trace, the file")
        for name in ("trace", "domain", "detail"):
            if self.law != "trace" and getattr(self, name) is not None:
                raise ValueError(f"{name} is read by law trace only")
        if self.burst is not None and self.law == "even":
            raise ValueError("law even forces the same counts always; burst needs another law")
        return self


_SLOTS_BY = ("factor", "absolute", "fraction")


class CapacitySpec(Spec):
    """How many tokens an expert accepts, by one of factor, absolute and fraction.

    What is left out is as in the code base of the formula.
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [name]} for name in _SLOTS_BY]}
    )

    factor: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """Capacity factor: slots over the mean load, by `formula`; tutel reads 0 and less as the
    fullest expert's load and a bound on it."""
    absolute: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """Slots of an expert, whatever the load."""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Slots over the tokens of a routing group (fairseq at evaluation)."""
    formula: Literal[
        "megatron", "deepspeed", "tutel", "megablocks", "switch", "flaxformer", "gshard",
        "fairseq", "deepseek_v2",
    ] = "megatron"  # fmt: skip
    """Whose rule turns the factor into slots, and whose habits hold for what is left out; switch
    and flaxformer leave top-k out; deepseek_v2 gives the slots of a rank, shared by its experts."""
    counts_k: bool | None = None
    """Whether the factor is multiplied by top-k."""
    rounding: Literal["floor", "ceil", "round"] | None = None
    """How slots are made whole, in place of the formula's own steps."""
    min_slots: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """Slots an expert has at least."""
    alignment: Annotated[int, Field(ge=1, le=2**20)] = 1
    """Slots are rounded up to a multiple of this."""
    group_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Tokens of a routing group."""
    scope: Literal["sequence", "rank", "group", "world"] | None = None
    """Whose tokens are a routing group: those of a sequence, of a rank, `group_tokens`, or of all
    ranks that share the experts."""
    pad: bool | None = None
    """Whether buffers are padded to the capacity, so that bytes and rows follow the slots."""
    spared_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the sequences whose tokens are never dropped (deepseek_v2: about 0.1)."""
    policy: Literal["probs", "position", "random"] | None = None
    """Who is dropped: the smallest weights, the last in the routing group, or anybody. How many
    does not depend on it."""
    padding_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tokens that are padding, at the end of each sequence. Slots are counted over
    them too; whether they also want any is said next."""
    padding_tokens_occupy_capacity: bool | None = None
    """Whether padding tokens are routed and take slots from others."""

    @model_validator(mode="after")
    def _check(self) -> "CapacitySpec":
        given = [name for name in _SLOTS_BY if self._has(name)]
        if len(given) != 1:
            raise ValueError(f"give one of factor, absolute and fraction, not {len(given)} of them")
        if self.factor is not None and self.factor <= 0 and self.formula != "tutel":
            raise ValueError("factor must be above 0; only tutel reads 0 and less")
        if self.group_tokens is not None and self.scope not in (None, "group"):
            raise ValueError(f"scope {self.scope} says how many tokens a group has; leave one out")
        if self.scope == "group" and self.group_tokens is None:
            raise ValueError("scope group needs group_tokens")
        if self.counts_k is not None and self.factor is None:
            raise ValueError("counts_k belongs to factor")
        if self.rounding is not None and self.absolute is not None:
            raise ValueError("absolute slots are whole already; leave rounding out")
        return self._check_fractions()

    def _check_fractions(self) -> "CapacitySpec":
        if self.spared_fraction and self.formula != "deepseek_v2":
            raise ValueError("spared_fraction belongs to formula deepseek_v2")
        if self.pad and self.formula == "deepseek_v2":
            raise ValueError("deepseek_v2 limits ranks, not experts: it has no buffers to pad")
        if self.padding_tokens_occupy_capacity is not None and not self.padding_fraction:
            raise ValueError("padding_tokens_occupy_capacity needs padding_fraction")
        return self

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def mode(self) -> str:
        """Where the slots come from."""
        return next(name for name in _SLOTS_BY if self._has(name))


class PlacementSpec(Spec):
    """Which rank holds which expert."""

    rule: Literal["contiguous", "round_robin", "greedy", "replicated", "replicated_by_node"] = (
        "contiguous"
    )
    """contiguous: in order; round_robin: in turn; greedy: the most loaded first onto the emptiest
    rank; replicated: hot experts get several slots (deepseek-ai/EPLB), by node where
    node-limited routing should stay inside nodes."""
    redundant_experts: Annotated[int, Field(ge=0, le=10**5)] = 0
    """Slots beyond one per expert, over all ranks together (replicated rules)."""
    share_correlation: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Correlation of the loads that the placement was made from with those it meets. Measured
    within a domain 0.96 to 0.998, across domains 0.04 to 0.23 (DeepSeek-V2-Lite and OLMoE routing
    data of deepseek-ai/ESFT @579a7711 and allenai/OLMoE @357454f4, first against second half)."""
    rebalance_every: Annotated[int, Field(ge=2, le=10**6)] | None = None
    """Steps from one rebalancing to the next: experts are placed anew by the loads of the step
    before, and `share_correlation` is that of each step with the next. Left out, a placement stays
    and is one step old."""

    @model_validator(mode="after")
    def _check(self) -> "PlacementSpec":
        if self.redundant_experts and not self.rule.startswith("replicated"):
            raise ValueError(f"rule {self.rule} has no redundant experts; the replicated ones do")
        if self.share_correlation < 1 and self.rule in ("contiguous", "round_robin"):
            raise ValueError(f"rule {self.rule} looks at no loads, so none can be out of date")
        if self.rebalance_every and self.share_correlation == 1:
            raise ValueError("rebalance_every needs share_correlation below 1: else no load drifts")
        return self


class RoutingSpec(Spec):
    """How tokens find their experts."""

    gating: GatingSpec = GatingSpec()
    """How a token chooses its experts."""
    load: LoadSpec = LoadSpec()
    """How unevenly tokens spread over experts."""
    capacity: CapacitySpec | None = None
    """Slots per expert; left out, no token is dropped."""
    block_rows: Annotated[int, Field(ge=2, le=2**16)] | None = None
    """Rows of each expert are rounded up to a multiple of this on its rank, where buffers are not
    padded to a capacity (MegaBlocks: 128); left out, kernels pad by themselves, as measured."""
    placement: PlacementSpec = PlacementSpec()
    """Which rank holds which expert."""
