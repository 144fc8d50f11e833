"""From words to arguments: known ones with as many values as they take, the rest with a hint."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moesim.errors import Problem, nearest
from moesim.spec.megatron import silent, unmodelled
from moesim.spec.megatron.names import names
from moesim.spec.megatron.reading import Given
from moesim.spec.megatron.shell import Word

MAPPED_FLAGS = names(
    """
    group-query-attention swiglu squared-relu quick-geglu multi-latent-attention qk-layernorm
    add-qkv-bias disable-bias-linear attention-output-gate untie-embeddings-and-output-weights
    moe-shared-expert-gate moe-grouped-gemm moe-permute-fusion sequence-parallel
    use-distributed-optimizer overlap-grad-reduce overlap-param-gather use-torch-fsdp2
    use-custom-fsdp use-megatron-fsdp torch-fsdp2-no-reshard-after-forward
    account-for-embedding-in-pipeline-split account-for-loss-in-pipeline-split
    use-tp-pp-dp-mapping moe-enable-deepep moe-shared-expert-overlap
    overlap-moe-expert-parallel-comm moe-pad-expert-input-to-capacity
    moe-router-force-load-balancing moe-router-padding-for-fp8
    moe-router-padding-for-quantization recompute-activations moe-layer-recompute bf16 fp16
    optimizer-cpu-offload grad-reduce-in-bf16 enable-cuda-graph external-cuda-graph
    cross-entropy-loss-fusion use-flash-attn tp-comm-overlap delay-wgrad-compute
    use-precision-aware-optimizer
    """
)
"""Flags that a scenario says."""

MAPPED_VALUES = names(
    """
    num-layers hidden-size ffn-hidden-size num-attention-heads num-query-groups kv-channels
    q-lora-rank kv-lora-rank qk-head-dim qk-pos-emb-head-dim v-head-dim window-size
    window-attn-skip-freq softmax-type normalization position-embedding-type
    max-position-embeddings vocab-size make-vocab-size-divisible-by padded-vocab-size
    tokenizer-type mtp-num-layers num-experts moe-router-topk moe-layer-freq moe-ffn-hidden-size
    moe-shared-expert-intermediate-size moe-router-num-groups moe-router-group-topk
    moe-router-topk-limited-devices moe-expert-capacity-factor moe-token-drop-policy
    moe-token-dispatcher-type moe-flex-dispatcher-backend tensor-model-parallel-size
    pipeline-model-parallel-size num-layers-per-virtual-pipeline-stage
    num-virtual-stages-per-pipeline-rank pipeline-model-parallel-layout
    decoder-first-pipeline-num-layers decoder-last-pipeline-num-layers context-parallel-size
    expert-model-parallel-size expert-tensor-parallel-size data-parallel-sharding-strategy
    outer-dp-sharding-strategy seq-length micro-batch-size global-batch-size
    recompute-granularity recompute-method recompute-num-layers recompute-modules fp8-format
    fp8-recipe fp4-format optimizer optimizer-offload-fraction main-grads-dtype cuda-graph-impl
    cuda-graph-scope cross-entropy-fusion-impl transformer-impl attention-backend world-size
    cp-comm-type cpu-offloading-num-layers exp-avg-dtype exp-avg-sq-dtype
    """
)
"""Arguments with values that a scenario says."""

FLAGS = MAPPED_FLAGS | silent.FLAGS | unmodelled.FLAGS.keys()
VALUES = MAPPED_VALUES | silent.VALUES | unmodelled.VALUES.keys()
_SEVERAL = names(
    """
    data-path train-data-path valid-data-path test-data-path recompute-modules cuda-graph-scope
    cp-comm-type hierarchical-context-parallel-sizes rampup-batch-size offload-modules
    profile-ranks lr-steps iterations-to-skip window-size mscale
    """
)
"""Arguments that take several values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What was given, and what nobody knows."""

    given: dict[str, Given]
    unknown: tuple[Given, ...]
    problems: tuple[Problem, ...]


def read_arguments(words: Sequence[Word], file: str) -> Arguments:
    """Return the arguments in `words`; the last of several of one name counts, as in argparse."""
    given: dict[str, Given] = {}
    unknown: list[Given] = []
    problems: list[Problem] = []
    for one in _options(words, file, problems):
        if one.name not in FLAGS and one.name not in VALUES:
            unknown.append(one)
            continue
        if (message := _wrong_number(one)) is not None:
            problems.append(Problem(f"--{one.name}", message, file, one.line, 1))
        else:
            given[one.name] = _split(one)
    return Arguments(given=given, unknown=tuple(unknown), problems=tuple(problems))


def _split(one: Given) -> Given:
    parts = tuple(part for value in one.values for part in value.split())
    return replace(one, values=parts) if one.name in _SEVERAL else one


def _options(words: Sequence[Word], file: str, problems: list[Problem]) -> Iterator[Given]:
    current: Given | None = None
    for word in words:
        if word.text.startswith("--"):
            if current is not None:
                yield current
            name, equals, value = word.text[2:].partition("=")
            current = Given(name.replace("_", "-"), (value,) if equals else (), word.line)
        elif current is not None:
            current = replace(current, values=(*current.values, word.text))
        else:
            message = f"'{word.text}' stands before the first argument; arguments begin with --"
            problems.append(Problem("", message, file, word.line, 1))
    if current is not None:
        yield current


def _wrong_number(one: Given) -> str | None:
    """Return what is wrong with the number of values, if anything."""
    if one.name in FLAGS and one.name not in VALUES:
        return f"takes no value, not '{' '.join(one.values)}'" if one.values else None
    if not one.values:
        return "needs a value"
    if len(one.values) > 1 and one.name not in _SEVERAL:
        return f"takes one value, not {len(one.values)}: {' '.join(one.values)}"
    return None


def unknown_problem(one: Given, file: str) -> Problem:
    """Return the problem that an argument is not known, with the nearest one that is."""
    hint = nearest(one.name, sorted(FLAGS | VALUES))
    hint = re.sub(r"'(.*)'", r"'--\1'", hint)
    message = f"unknown argument.{hint} --allow-unknown lists it and goes on"
    return Problem(f"--{one.name}", message, file, one.line, 1)
