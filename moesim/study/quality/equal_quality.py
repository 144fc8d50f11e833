"""How long a MoE and a dense network train to equal quality, and where that equality comes from.

Throughputs are handed in, simulated or measured; laws and measurements say how many tokens of
which dense network are as good as the MoE's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moesim.errors import ModelError
from moesim.study.quality.scaling_laws import (
    CLARK2022,
    KRAJEWSKI2024,
    KRAJEWSKI2024_DENSE,
    clark2022_multiplier,
    krajewski2024,
    krajewski2024_dense,
    krajewski_loss,
)

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which dense training is as good as a MoE's."""

    params_ratio: float = 1.0
    """Parameters of the dense network over the active ones of the MoE."""
    token_ratio: float = 1.0
    """Tokens that the dense network needs over those of the MoE."""
    source: str
    kind: str
    """measured (a published pair of runs), fitted (a law), assumed (stated by the user)."""


ANCHORS: Mapping[str, Match] = MappingProxyType(
    {
        "olmoe": Match(
            token_ratio=3.0,
            kind="measured",
            source="OLMoE (arXiv 2409.02060), sec. 4.1.1: 1.3B dense, 1.3B active of 6.9B, 130B "
            "tokens",
        ),
        "deepspeed_1.3b": Match(
            params_ratio=6.7 / 1.3,
            kind="measured",
            source="microsoft/DeepSpeed docs/_posts/2021-12-09-deepspeed-moe-nlg.md @38327e07: "
            "1.3B + 128 experts and 6.7B dense, 300B tokens each, equal validation loss",
        ),
        "deepspeed_350m": Match(
            params_ratio=1.3 / 0.35,
            kind="measured",
            source="microsoft/DeepSpeed, as deepspeed_1.3b: 350M + 128 experts and 1.3B dense",
        ),
        "switch_base_64": Match(
            token_ratio=7.5,
            kind="measured",
            source="Switch Transformers (JMLR 2022), sec. 3.1: T5-Base at step 450k, 64 experts "
            "at step 60k",
        ),
    }
)
"""Pairs of runs that reached the same loss."""


def stated(token_ratio: float, params_ratio: float = 1.0) -> Match:
    """Return the match that a user states."""
    return Match(
        params_ratio=params_ratio, token_ratio=token_ratio, kind="assumed", source="stated"
    )


def clark2022_match(
    active_params: float,
    experts: float,
    router: str = "s_base",
    *,
    tokens: float = 130e9,
    extrapolate: bool = False,
) -> Match:
    """Return the larger dense network that is as good after as many tokens: clark2022_multiplier.

    Against DeepSpeed's two pairs (300B tokens, beyond the fit's 130B) it is 24 % high at 350M and
    31 % low at 1.3B.
    """
    ratio = clark2022_multiplier(
        active_params, experts, router, tokens=tokens, extrapolate=extrapolate
    )
    return Match(params_ratio=ratio, kind="fitted", source=CLARK2022.source)


def krajewski2024_match(
    active_params: float,
    total_params: float,
    tokens: float,
    granularity: float,
    *,
    extrapolate: bool = False,
) -> Match:
    """Return how many more tokens the dense network of as many active parameters needs.

    c + a / N^alpha + b / D^beta = L(moe) is solved for D. ModelError where no number of tokens is
    enough, because the dense network is too small.
    """
    loss = krajewski2024(total_params, tokens, granularity, extrapolate=extrapolate)
    fit = KRAJEWSKI2024_DENSE
    left = loss - krajewski_loss(fit, active_params, float("inf"))
    if left <= 0:
        raise ModelError(
            f"{KRAJEWSKI2024.name}: no number of tokens brings a dense network of "
            f"{active_params:.3g} parameters to a loss of {loss:.3f}; compare with a larger one"
        )
    dense_tokens = (fit.b / left) ** (1 / fit.beta)
    krajewski2024_dense(active_params, dense_tokens, extrapolate=extrapolate)  # refuses if far off
    return Match(token_ratio=dense_tokens / tokens, kind="fitted", source=KRAJEWSKI2024.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualQuality:
    """How long both take to the same quality."""

    match: Match
    moe_days: float
    dense_days: float

    @property
    def speed_up(self) -> float:
        """Days of the dense network over those of the MoE: token_ratio * v_moe / v_dense."""
        return self.dense_days / self.moe_days


def time_to_equal_quality(
    match: Match, moe_tokens: float, *, moe_tokens_per_s: float, dense_tokens_per_s: float
) -> EqualQuality:
    """Return the days of a MoE trained on `moe_tokens`, and of the dense network as good.

    `dense_tokens_per_s` is that of the dense network that the match names, on the same devices.
    """
    return EqualQuality(
        match=match,
        moe_days=training_days(moe_tokens, moe_tokens_per_s),
        dense_days=training_days(match.token_ratio * moe_tokens, dense_tokens_per_s),
    )


def training_days(tokens: float, tokens_per_s: float) -> float:
    """Return tokens / (tokens per second) in days."""
    return tokens / tokens_per_s / DAY_S


def device_years(devices: int, days: float) -> float:
    """Return devices * days / 365, as GShard counts TPU core years."""
    return devices * days / 365
