"""What the router does: who is chosen, how evenly, where experts lie, what exceeds the capacity."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from moesim.spec.base import Spec
from moesim.spec.expert_load import LoadSpec
from moesim.spec.gating import GatingSpec

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
