"""Activations that wait in the host's memory between forward and backward pass.

What a layer keeps goes to the host beside the next layer of the forward pass and comes back beside
the layer before it in the backward pass; copy engines take nothing from compute.

    exposed after a layer = max(0, kept bytes of its neighbour / host link - time of the layer)

Source: TransformerEngine cpu_offload.py (one layer ahead, streams of their own); JAX
jax.checkpoint_policies.save_and_offload_only_these_names.
"""

from collections.abc import Sequence

from moesim.cost.recomputation import kept_bytes
from moesim.cost.times import Part
from moesim.cost.work import Block

COPIES = "activation offload"


def offloaded(found: Sequence[Block], layers: int) -> list[bool]:
    """Tell of each block whether it is among the first `layers` layers, which are offloaded."""
    left, marks = layers, []
    for block in found:
        marks.append(block.is_layer and left > 0)
        left -= block.is_layer
    return marks


def copies_s(
    found: Sequence[Block], layers: int, recompute: tuple[str, ...], host_bytes_per_s: float
) -> list[float]:
    """Return how long each block's kept activations take over the host link, one way."""
    known: dict[int, float] = {}
    for block in found:
        if id(block) not in known:
            known[id(block)] = kept_bytes(block.operators, recompute) / host_bytes_per_s
    marks = offloaded(found, layers)
    return [known[id(block)] if mark else 0.0 for block, mark in zip(found, marks, strict=True)]


def copied_out(blocks: Sequence[list[Part]], copies: Sequence[float]) -> list[list[Part]]:
    """Return a forward pass whose every block waits for the copy of the one before it."""
    before = [0.0, *copies[:-1]]
    return [_with_copy(own, copy_s) for own, copy_s in zip(blocks, before, strict=True)]


def fetched(blocks: Sequence[list[Part]], copies: Sequence[float]) -> list[list[Part]]:
    """Return a backward pass, in its order, whose every block also fetches for the next one."""
    following = [*copies[1:], 0.0]
    found = [_with_copy(own, copy_s) for own, copy_s in zip(blocks, following, strict=True)]
    return [_alone(copies[0]) + found[0], *found[1:]]


def _with_copy(own: list[Part], copy_s: float) -> list[Part]:
    return own + _alone(copy_s - sum(part.seconds for part in own))


def _alone(seconds: float) -> list[Part]:
    return [Part("host", COPIES, seconds)] if seconds > 0.0 else []


def on_device(found: Sequence[Block], layers: int, count: int) -> list[tuple[Block, int]]:
    """Return each block with how many micro-batches of it are kept on the device, of `count`.

    Of offloaded layers there are two at a time: the one at work and its neighbour.
    """
    marks = offloaded(found, layers)
    places = [number for number, mark in enumerate(marks) if mark]
    return [
        (block, (1 if number in places[:2] else 0) if marks[number] else count)
        for number, block in enumerate(found)
    ]
