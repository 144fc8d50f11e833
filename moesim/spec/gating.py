"""What the user writes about the gating rule: how a token chooses its experts."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

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
    rule: Literal["softmax_topk", "noisy_topk", "base"] | None = None
    """How the routers of this level choose (nested); left out: softmax_topk."""


class GatingSpec(Spec):
    """How a token chooses its experts."""

    rule: (
        Literal[
            "softmax_topk", "noisy_topk", "gshard_top2", "switch_top1", "st_moe", "expert_choice",
            "base", "hash", "deepseek_v2", "deepseek_v3", "hierarchical", "mtf_v2", "nested",
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
    """Standard deviation of the noise on a logit (noisy_topk, also as the rule of a level)."""
    sharpness: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """How far logits lie apart: it moves weights, not who is chosen (gshard_top2, mtf_v2)."""
    levels: Annotated[Listed[LevelSpec], Field(max_length=4)] = ()
    """The hierarchy from the top (hierarchical, mtf_v2), or experts that are MoEs themselves
    (nested)."""
    shared_router: bool | None = None
    """Whether one router's scores serve all levels, as in node-limited routing (hierarchical)."""
    zipf_exponent: Annotated[float, Field(ge=0, le=10)] | None = None
    """Token ids are as frequent as rank^-exponent over the vocabulary of the model (hash); left
    out: 1, Zipf's law (assumed: no frequencies of a tokenizer are at hand)."""
    hash_map: Literal["mixed", "balanced"] | None = None
    """How token ids are mapped to experts (hash): scrambled (left out), or the most frequent first
    to the least loaded expert (Roller et al. 2021, Hash layers)."""

    @model_validator(mode="after")
    def _check(self) -> "GatingSpec":
        for name, rules in _READ_BY.items():
            if getattr(self, name) not in (None, ()) and self.rule not in rules:
                raise ValueError(f"{name} is read by the rule {' and '.join(rules)} only")
        if self.threshold is not None and self.second_policy not in ("threshold", "random_mtf"):
            raise ValueError("threshold is read by second_policy threshold and random_mtf only")
        if self.rule != "nested" and any(level.rule for level in self.levels):
            raise ValueError("rule of a level is read by the rule nested only")
        noisy = any(level.rule == "noisy_topk" for level in self.levels)
        if self.rule == "nested" and self.noise is not None and not noisy:
            raise ValueError("noise is read by levels with the rule noisy_topk only")
        return self


_TOP2 = ("gshard_top2", "mtf_v2")
_READ_BY = {
    "second_policy": _TOP2,
    "threshold": _TOP2,
    "sharpness": _TOP2,
    "noise": ("noisy_topk", "nested"),
    "levels": ("hierarchical", "mtf_v2", "nested"),
    "zipf_exponent": ("hash",),
    "hash_map": ("hash",),
    "shared_router": ("hierarchical",),
}
"""Which rules read a key."""
