"""What the host adds: kernels it launches one by one, and a stop for the tokens per expert.

Eager trainers launch each kernel from Python, forward and backward; the device waits where it is
done before the next launch comes. Launches are asynchronous (PyTorch notes, CUDA
semantics), so the host runs ahead over the blocks of a pass up to its next stop. Between two stops

t = max(sum of device seconds, sum of kernels * host per kernel) + stops * synchronisation

Dropless experts stop once per forward pass of a layer: the host must know the rows of each expert
to size buffers and products (Megatron-LM core/transformer/moe/token_dispatcher.py copies
`tokens_per_expert` to the host); experts padded to their capacity and gradients do not. CUDA
graphs launch what they hold at once: `attention_router` holds attention, norms, router and shared
experts (Megatron-LM --cuda-graph-scope attn moe_router), `full` the whole pass, which cannot stop
either.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Pace:
    """What host and device each need for one block of a pass, and the stops of the host in it."""

    host_s: float
    device_s: float
    stops: int = 0


def pace(operators: list[Operator], device_s: float, stops: int, software: Software) -> Pace:
    """Return the pace of a block whose operators keep the device busy for `device_s`."""
    if software.cuda_graph == "full":
        return Pace(0.0, device_s)
    host_s = launches(operators, software.cuda_graph) * software.host_per_kernel_s
    return Pace(host_s, device_s, stops)


def host_parts(blocks: list[Pace], software: Software) -> list[list[Part]]:
    """Return, for each block of a pass in order, what the device waits for the host.

    A block in which the host stops ends a stretch. What a stretch waits in all is shared out over
    its blocks as each would wait alone.
    """
    return [part for stretch in _stretches(blocks) for part in _stretch_parts(stretch, software)]


def waited_s(blocks: list[Pace], software: Software) -> float:
    """Return what the device waits for the host in a pass of these blocks, all in all."""
    stops = sum(block.stops for block in blocks)
    waited = sum(max(0.0, _behind_s(stretch)) for stretch in _stretches(blocks))
    return waited + stops * software.host_sync_s


def _stretches(blocks: list[Pace]) -> Iterator[list[Pace]]:
    stretch: list[Pace] = []
    for block in blocks:
        stretch.append(block)
        if block.stops:
            yield stretch
            stretch = []
    yield stretch


def _behind_s(stretch: list[Pace]) -> float:
    """Return what the host needs longer than the device."""
    return sum(block.host_s for block in stretch) - sum(block.device_s for block in stretch)


def _stretch_parts(stretch: list[Pace], software: Software) -> list[list[Part]]:
    behind = [max(0.0, block.host_s - block.device_s) for block in stretch]
    in_all = _behind_s(stretch)
    share = in_all / sum(behind) if in_all > 0.0 else 0.0
    return [
        [
            Part("compute", "host launches", alone * share),
            Part("compute", "host synchronisation", block.stops * software.host_sync_s),
        ]
        for block, alone in zip(stretch, behind, strict=True)
    ]
