"""What the host adds: kernels it launches one by one, and a stop for the tokens per expert.

Eager trainers launch each kernel from Python, forward and backward; the device waits where it is
done before the next launch comes. Per block of a pass

t = max(device seconds, kernels * host per kernel) + stops * synchronisation

since the host runs ahead within a block. Dropless experts stop once per pass of a layer: the host
must know the rows of each expert to size buffers and products (Megatron-LM
core/transformer/moe/token_dispatcher.py copies `tokens_per_expert` to the host). CUDA graphs launch
what they hold at once: `attention_router` holds attention, norms, router and shared experts
(Megatron-LM --cuda-graph-scope attn moe_router), `full` the whole pass, which cannot stop either.
"""

from collections.abc import Iterable

from moesim.cost.software import Software
from moesim.cost.times import Part
from moesim.model.operators import AttentionCore, GroupedGemm, Operator

_GRAPHED = frozenset(
    {"layernorm", "qkv", "mla_up_proj", "core_attn", "proj", "router", "shared", "tp", "cp"}
)
"""Modules in a graph of attention and router."""

LAUNCHES = "host launches"
"""What the device waits for launches, as reports show it."""

_UNFUSED_FORWARD, _UNFUSED_BACKWARD = 4, 6
"""Kernels of attention that is not fused, see unfused.py."""


def kernels_of(operator: Operator) -> int:
    """Return the kernels of `operator`; products of experts count expert by expert.

    Transformer Engine's GroupedLinear (pytorch/module/grouped_linear.py) loops over cuBLAS products
    and has one weight per expert, each with its own quantiser, gradient and hooks in Python.
    """
    match operator:
        case GroupedGemm():
            once = sum(1 for rows in operator.rows if rows)
        case AttentionCore(fused=False):
            once = _UNFUSED_FORWARD if operator.qk_products == 1 else _UNFUSED_BACKWARD
        case _:
            once = 1
    return once * operator.count


def launches(operators: Iterable[Operator], cuda_graph: str) -> int:
    """Return how often the host launches something for `operators`; a graph is one launch."""
    if cuda_graph == "full":
        return 1
    held = _GRAPHED if cuda_graph == "attention_router" else frozenset()
    found = list(operators)
    single = sum(kernels_of(one) for one in found if one.module not in held)
    return single + any(one.module in held for one in found)


def host_s(operators: Iterable[Operator], software: Software) -> float:
    """Return how long the host takes to launch `operators`."""
    if software.cuda_graph == "full":
        return 0.0
    return launches(operators, software.cuda_graph) * software.host_per_kernel_s


def host_parts(busy_s: float, device_s: float, stops: int, software: Software) -> list[Part]:
    """Return what the device waits for the host, which launches for `busy_s`, in one block."""
    if software.cuda_graph == "full":
        return []
    return [
        Part("compute", LAUNCHES, max(0.0, busy_s - device_s)),
        Part("compute", "host synchronisation", stops * software.host_sync_s),
    ]
