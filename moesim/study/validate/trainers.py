"""What is known of the trainer behind a source: its kernels, its defaults, its measured rates."""

from dataclasses import dataclass

from moesim.spec.cases import Case
from moesim.study.validate.options import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """A trainer as its documents describe it."""

    words: tuple[str, ...]
    """Any of these in a case's source or framework means it."""
    attention: str = "fused"
    """Its attention, see training.attention_kernel."""
    fused_loss: bool = True
    """Whether cross-entropy is one pass where a case does not say."""
    loss: str = "unfused"
    """What it is where it is not one pass."""
    software: str = "megatron"
    """The software profile of its kernels."""
    fusions: str = "full"
    """Whose passes run between the products, see training.fusions."""
    plain_ddp: bool = False
    """Whether every replica has all optimizer states, and gradients of the type of the weights are
    reduced after the last backward pass, where a case does not say."""
    compiled: bool = False
    """Whether a step is one program, launched at once."""
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
        attention="unfused",
        fused_loss=False,
        software="pytorch",
        fusions="megatron_2021",
        plain_ddp=True,
        note="Megatron-LM of 2022: no FlashAttention, scores go through memory; cross-entropy not "
        "fused; dropout; gradients reduced after the backward pass, optimizer states not spread",
    ),
    Trainer(
        words=("maxtext", "MaxText", "tpu-recipes", "2101.03961"),
        compiled=True,
        note="XLA compiles the step: the host launches it once",
    ),
    Trainer(
        words=("mosaicml/llm-foundry",),
        software="pytorch",
        fusions="llm_foundry",
        attention="flash_1",
        note="MPT's own passes and its default attention, the first FlashAttention in Triton",
    ),
    Trainer(
        words=("allenai/OLMoE",),
        fused_loss=False,
        loss="torch",
        software="pytorch",
        fusions="olmo",
        attention="flash_2",
        note="OLMo's own passes, FlashAttention-2",
    ),
    Trainer(
        words=("FSDP", "nnscaler"),
        software="pytorch",
        note="PyTorch FSDP on PyTorch's own operators",
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


def read_trainer(case: Case, reading: Reading, trainer: Trainer) -> None:
    """Add the habits of `trainer` to what a case says; its own words come first.

    `gradient_bucket: false` (vTrain) is a trainer that reduces gradients in one piece at the end.
    """
    reading.assume(trainer.note)
    if trainer.attention != "fused":
        reading.training["attention_kernel"] = trainer.attention
    if trainer.fusions != "full":
        reading.training["fusions"] = trainer.fusions
    if not trainer.plain_ddp:
        return
    reading.training.setdefault("overlap", {}).setdefault("grad_reduce", False)
    optimizer = reading.training.setdefault("optimizer", {})
    optimizer.setdefault("distributed", False)
    if reading.training["precision"] == "fp16":
        optimizer.setdefault("gradient_dtype", "bf16")
    if "zero" not in case.part("options"):
        reading.unstated.add("optimizer.distributed")
