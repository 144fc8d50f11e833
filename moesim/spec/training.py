"""What is trained: batch, sequence, precision, optimizer, recomputation."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from moesim.errors import nearest
from moesim.spec.base import Spec
from moesim.spec.data_loading import DataLoadingSpec
from moesim.spec.quantities import Tokens

Batch = Annotated[int, Field(ge=1, le=10**8)]
Length = Annotated[int, Field(ge=1, le=10**7)]
Module = Literal[
    "full", "layernorm", "qkv", "core_attn", "mla_up_proj", "proj", "moe_act", "mlp", "moe",
    "shared_experts",
]  # fmt: skip
_MODULES = get_args(Module)
RECOMPUTABLE: tuple[str, ...] = tuple(name for name in _MODULES if name != "full")
"""Modules of a layer that can be computed again one by one."""


def _modules(value: Any) -> Any:
    """Read `none`, `full` or a list of modules as a tuple of names."""
    if value == "none":
        return ()
    if value == "full":
        return ("full",)
    names = RECOMPUTABLE
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"must be none, full, or a list of modules out of: {', '.join(names)}")
    for name in value:
        if name not in names:
            raise ValueError(
                f"unknown module '{name}'.{nearest(name, names)} Allowed: {', '.join(names)}"
            )
    return tuple(value)


Recompute = Annotated[
    tuple[Module, ...],
    BeforeValidator(_modules),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["none", "full"]},
                {"type": "array", "items": {"enum": list(RECOMPUTABLE)}},
            ]
        }
    ),
]


def _share(value: Any) -> Any:
    """Read true and false as all and nothing."""
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("must be true, false, or a share from 0 to 1")
    return float(value)


Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "number", "minimum": 0, "maximum": 1}]}
    ),
]


MomentType = Literal["fp32", "fp16", "bf16", "fp8", "int8"]


class OptimizerSpec(Spec):
    """What updates the weights, and where its state lies."""

    kind: Literal["adam", "adafactor", "sgd"] = "adam"
    """adam: two moments per weight; adafactor: row and column averages; sgd: no moments."""
    distributed: bool = True
    """Whether master weights and moments are spread over the data-parallel ranks (ZeRO-1)."""
    offload: Share = 0.0
    """Share of the weights that the host updates, or true for all: their moments lie in its memory,
    their gradients and weights cross the host link at each update; master weights stay."""
    post_validation: bool = False
    """Update without a wait for the gradient norm of the other stages, and take the update back in
    the rare step that should have been clipped: stages that begin late may end late."""
    gradient_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type in which gradients are kept and reduced."""
    moment_dtype: MomentType = "fp32"
    """Type of Adam's moments. fp8 has a scale per tensor; int8, an 8-bit optimizer, one for each
    block of 2048 values."""
    second_moment_dtype: MomentType | None = None
    """Type of the second moment, the mean of squares, where it is another than the first's, such as
    fp16 beside fp8 (Megatron-LM --exp-avg-sq-dtype); left out, moment_dtype."""

    @model_validator(mode="after")
    def _check(self) -> "OptimizerSpec":
        second = self.second_moment_dtype
        if self.kind != "adam" and (self.moment_dtype != "fp32" or second is not None):
            key = "moment_dtype" if second is None else "second_moment_dtype"
            raise ValueError(f"{key} needs kind: adam; {self.kind} keeps no moments")
        return self

    @property
    def moment_dtypes(self) -> tuple[MomentType, MomentType]:
        """Types of both moments, resolved."""
        return self.moment_dtype, self.second_moment_dtype or self.moment_dtype


class OverlapSpec(Spec):
    """Communication that runs beside compute."""

    grad_reduce: bool = True
    """Reduce gradients while the last backward passes still run."""
    param_gather: bool = True
    """Gather the updated weights while the first forward passes run."""
    tensor_parallel: bool = False
    """Run the gathers and scatters of tensor parallelism beside the matrix products next to them;
    needs tp above 1 and sequence_parallel."""
    expert_exchange: Literal["none", "shared_expert", "batch"] = "none"
    """What runs while tokens travel to their experts and back. shared_expert: shared experts;
    batch: another micro-batch's pass, forward beside backward, where the 1F1B schedule alternates
    them."""
    delay_weight_gradients: bool = False
    """Whether, in passes of two micro-batches beside each other, dispatch and combine of gradients
    wait for those of activations alone; those of a layer's weights then run beside them."""

    @model_validator(mode="after")
    def _check(self) -> "OverlapSpec":
        if self.delay_weight_gradients and self.expert_exchange != "batch":
            raise ValueError(
                "delay_weight_gradients needs expert_exchange: batch; without another "
                "micro-batch's pass nothing runs beside the exchanges"
            )
        return self


class TrainingSpec(Spec):
    """A training step."""

    sequence_length: Length
    """Tokens per sequence; for an encoder-decoder model those of the encoder."""
    target_length: Length | None = None
    """Tokens per sequence in the decoder of an encoder-decoder model."""
    global_batch: Batch
    """Sequences per optimizer step, over all devices."""
    micro_batch: Batch = 1
    """Sequences that one forward pass takes."""
    precision: Literal["bf16", "fp16", "fp8", "fp32", "tf32"] = "bf16"
    """Type of the matrix products; with tf32 all tensors are fp32, and the matrix units round what
    they read."""
    fp8_recipe: Literal["delayed", "tensorwise", "mxfp8", "blockwise"] | None = None
    """How fp8 products get their scales, and so what is cast before each: delayed (from earlier
    steps), tensorwise (of the tensor itself), mxfp8 (of 32 values), blockwise (of 128 values or
    128 x 128); left out: tensorwise."""
    attention_kernel: Literal["fused", "flash_2", "flash_1", "unfused", "unfused_fp32"] = "fused"
    """fused: the newest FlashAttention of the device and its like; flash_2, flash_1: those of 2023
    and 2022, which take longer; unfused: scores, softmax and dropout one after the other
    through memory, as trainers before 2023 did; unfused_fp32: the same with fp32 scores, as Mesh
    TensorFlow does."""
    permutation: Literal["index", "one_hot"] = "index"
    """How tokens enter the buffers of their experts and leave them. index: each row is copied;
    one_hot: products with masks of tokens, experts and slots, as GShard, Mesh TensorFlow and
    MaxText's dense_matmul do; it needs routing.capacity with padded buffers."""
    fusions: Literal["full", "megatron_2021", "llm_foundry", "transformers", "olmo"] = "full"
    """What runs between the products of a layer: one kernel each for residual and norm, rope and
    activation (full), or the passes of a code base: megatron_2021 (to 2023, with dropout),
    llm_foundry (MPT), transformers (Llama, without fused kernels), olmo."""
    cross_entropy: Literal["fused", "native", "unfused", "torch"] = "fused"
    """fused: one kernel reads the logits and one writes their gradients in the same place; unfused:
    cast to fp32, maximum, subtraction, exponential, sum and division one after the other, as
    Megatron-LM without --cross-entropy-loss-fusion; native: these compiled to three kernels, as
    Megatron-LM's own fusion; torch: PyTorch's log-softmax and loss on fp32 logits."""
    cuda_graph: Literal["none", "attention_router", "full"] = "none"
    """What is launched as a CUDA graph instead of kernel by kernel: none, attention and router of
    each layer, or whole passes, which need no synchronisation for experts either."""
    recompute: Recompute = ()
    """What is computed again in the backward pass instead of kept: none, full (only the input of
    each layer is kept), or a list of modules."""
    offload_layers: Annotated[int, Field(ge=0, le=2000)] = 0
    """Layers of each pipeline chunk, the first ones, whose kept activations wait in the host's
    memory between forward and backward pass; they cross the host link beside compute."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """What updates the weights."""
    overlap: OverlapSpec = OverlapSpec()
    """Communication that runs beside compute."""
    data_loading: DataLoadingSpec | None = None
    """How fast data comes; left out, it is always there in time."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Steps to simulate; with random loads each draws its own."""
    tokens: Tokens | None = None
    """Tokens to train on in all, such as `2 Ttokens`; gives days and cost."""

    @model_validator(mode="after")
    def _check(self) -> "TrainingSpec":
        if self.fp8_recipe is not None and self.precision != "fp8":
            raise ValueError(f"fp8_recipe needs precision: fp8, not {self.precision}")
        if self.fusions != "full" and self.precision in ("fp32", "tf32"):
            raise ValueError(
                f"fusions: {self.fusions} counts passes over 16-bit activations: with precision "
                f"{self.precision} only full is allowed"
            )
        if self.micro_batch > self.global_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} is larger than global_batch {self.global_batch}"
            )
        return self
