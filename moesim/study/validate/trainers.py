"""What is known of the trainer behind a source: its kernels, its defaults, its measured rates."""

from dataclasses import dataclass

from moesim.spec.cases import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """A trainer as its documents describe it."""

    words: tuple[str, ...]
    """Any of these in a case's source or framework means it."""
    fused_attention: bool = True
    fused_loss: bool = True
    """Whether cross-entropy is one pass where a case does not say."""
    compiled: bool = False
    """Whether a step is one program, launched at once."""
    family: str = "megatron"
    """Trainers that share host code."""
    note: str = ""
    narrow_dispatch: bool = False
    """Whether fp8 training sends fp8 values to the experts."""
    fp8_recipe: str = ""
    """How fp8 values are scaled where a case does not say."""
    recompute: tuple[str, ...] = ()
    """What the backward pass computes again where a case does not say."""


TRAINERS: tuple[Trainer, ...] = (
    Trainer(
        words=("deepseek-ai/profile-data",),
        narrow_dispatch=True,
        fp8_recipe="blockwise",
        recompute=("layernorm", "mla_up_proj", "moe_act"),
        note="DeepSeek-V3, arXiv 2412.19437: scales for blocks of 128 (section 3.3.2), tokens go "
        "to their experts in fp8 (3.3.3), norms, up-projections of attention (3.2.3) and SwiGLU "
        "(3.3.3) are computed again",
    ),
    Trainer(
        words=("2205.05198", "vTrain", "stanford-futuredata/megablocks", "2211.15841"),
        fused_attention=False,
        fused_loss=False,
        note="Megatron-LM of 2022 has no FlashAttention: scores go through memory; cross-entropy "
        "is not fused",
    ),
    Trainer(
        words=("maxtext", "MaxText", "tpu-recipes", "2101.03961"),
        compiled=True,
        family="xla",
        note="XLA compiles the step: the host launches it once",
    ),
    Trainer(
        words=("FSDP", "mosaicml/llm-foundry", "allenai/OLMoE", "nnscaler"),
        family="fsdp",
        note="host time of a trainer of PyTorch FSDP taken as Megatron's",
    ),
    Trainer(
        words=("NVIDIA/Megatron-LM:tests", "2504.14960"),
        fused_loss=False,
        note="cross-entropy not stated: Megatron-LM's default, not fused",
    ),
)


def trainer_of(case: Case) -> Trainer | None:
    """Return the trainer that a case was measured with, where something is known of it."""
    text = f"{case.text('source')} {case.part('options').get('framework', '')}"
    return next((one for one in TRAINERS if any(word in text for word in one.words)), None)
