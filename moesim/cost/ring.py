"""Keys and values that travel round a ring of ranks while attention uses those at hand."""

from moesim.cost.exchange_overlap import together_s
from moesim.cost.times import Part
from moesim.cost.two_streams import Interference

RING = "context parallel"


def beside_attention(parts: list[Part], ranks: int, rate: float) -> list[Part]:
    """Return parts, the ring's turns shorter by what attention hides of them.

    Attention has `ranks` turns, the ring one fewer: (cp - 1) / cp of attention run beside it. A
    sender's kernels take few of the compute units; that they take none is assumed. Source:
    Liu et al., arXiv 2310.01889, section 3; Megatron-LM --cp-comm-type p2p.
    """
    attention_s = sum(part.seconds for part in parts if part.name == "attention")
    ring_s = sum(part.seconds for part in parts if part.name == RING)
    if not attention_s or not ring_s:
        return parts
    beside_s = attention_s * (ranks - 1) / ranks
    both_s = together_s(beside_s, ring_s, Interference(rate=rate, taken=0.0))
    left = (both_s - beside_s) / ring_s
    return [
        Part(part.stream, part.name, part.seconds * (left if part.name == RING else 1.0))
        for part in parts
    ]
