"""Load laws with a name, a source and the range in which they were seen to hold."""

from dataclasses import dataclass

from moesim.moe.loads import LoadLaw, cv_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A load law that somebody may take without measuring: where it comes from and holds."""

    law: LoadLaw
    kind: str
    """datasheet, measured, fitted or assumed."""
    source: str
    validity: str


PRESETS: dict[str, Preset] = {
    "forced_balance": Preset(
        law=LoadLaw(law="even"),
        kind="assumed",
        source=(
            "deepseek-ai/profile-data README @44960242: profiles 'simulate an absolutely balanced "
            "MoE routing strategy'; most vendor tables are measured so"
        ),
        validity="benchmarks that force balance; real serving is about half as fast (same source)",
    ),
    "training_with_balancing_loss": Preset(
        law=LoadLaw(law="dirichlet", cv=0.1),
        kind="assumed",
        source=(
            "Shazeer et al. 2017 (arXiv 1701.06538), table 6: CV of the load 0.02 to 0.17 with "
            "balancing losses, 3.01 without; a Dirichlet and the middle of 0.02..0.2 are our choice"
        ),
        validity=(
            "training with an auxiliary loss after its first hundreds of updates; early on the "
            "fullest 20 % of experts hold half to two thirds of the first choices"
        ),
    ),
    "deepseek_r1_inference": Preset(
        law=LoadLaw(law="lognormal", cv=cv_of(1.05)),
        kind="fitted",
        source=(
            "NVIDIA/TensorRT-LLM tech_blog/blog4, table 1 @1d263f15 (DeepSeek-R1, translation data "
            "set, EP 32): within 7 % of CV and imbalance of experts and of ranks"
        ),
        validity=(
            "one data set; sigma chosen after seeing the four figures. Other open models: CV "
            "0.06..0.24 (Mixtral), 0.39..1.31 (OLMoE), 0.44..1.31 (DeepSeek-V2-Lite) per layer "
            "and domain; layers of DeepSeek-R1 differ fivefold"
        ),
    ),
}
"""The presets by their name in YAML."""
