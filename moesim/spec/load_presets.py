"""Load laws with a name, a source and the range in which they were seen to hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A load law that somebody may take without measuring: where it comes from and holds."""

    law: str
    cv: float | None = None
    kind: str
    """datasheet, measured, fitted or assumed."""
    source: str
    validity: str


_MEASURED = "CV of expert counts per layer and domain, median (5 % and 95 % quantile: {}) in {}"
_OLMOE = "allenai/OLMoE @357454f4"
_SHAPE = "; that the law is lognormal is our choice (sorted shares fit as well as a Dirichlet's)"

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "forced_balance": Preset(
            law="even",
            kind="assumed",
            source=(
                "deepseek-ai/profile-data README @44960242: profiles 'simulate an absolutely "
                "balanced MoE routing strategy'; most vendor tables are measured so"
            ),
            validity="benchmarks that force balance; real serving is about half as fast",
        ),
        "training_with_balancing_loss": Preset(
            law="dirichlet",
            cv=0.1,
            kind="assumed",
            source=(
                "Shazeer et al. 2017 (arXiv 1701.06538), table 6: CV of the load 0.02 to 0.17 with "
                "balancing losses, 3.01 without; a Dirichlet and the middle of 0.02..0.2 are our "
                "choice"
            ),
            validity=(
                "training with an auxiliary loss after its first hundreds of updates; early on the "
                "fullest 20 % of experts hold half to two thirds of the first choices"
            ),
        ),
        "deepseek_r1_inference": Preset(
            law="lognormal",
            cv=1.4183,  # sqrt(exp(sigma^2) - 1) with sigma 1.05
            kind="fitted",
            source=(
                "NVIDIA/TensorRT-LLM tech_blog/blog4, table 1 @1d263f15 (DeepSeek-R1, translation "
                "data set, EP 32): within 7 % of CV and imbalance of experts and of ranks"
            ),
            validity=(
                "one data set; sigma 1.05 chosen after seeing the four figures; layers of "
                "DeepSeek-R1 differ fivefold"
            ),
        ),
        "deepseek_v2_lite_inference": Preset(
            law="lognormal",
            cv=0.80,
            kind="measured",
            source=_MEASURED.format("0.44, 1.31", "deepseek-ai/ESFT @579a7711") + _SHAPE,
            validity="prefill of one task; an equal mix of four tasks has a CV of 0.51",
        ),
        "olmoe_inference": Preset(
            law="lognormal",
            cv=0.84,
            kind="measured",
            source=_MEASURED.format("0.39, 1.31", _OLMOE) + _SHAPE,
            validity="text of one domain; an equal mix of domains has a CV of 0.45",
        ),
        "mixtral_inference": Preset(
            law="lognormal",
            cv=0.12,
            kind="measured",
            source=_MEASURED.format("0.06, 0.24", _OLMOE) + _SHAPE,
            validity="text of one domain; an equal mix of domains has a CV of 0.10",
        ),
    }
)
"""The presets by their name in YAML."""
