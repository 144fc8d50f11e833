"""What a source states of the operators on its own machine, beyond the shares of a profile.

attention: t = 2 pairs_of_the_figure (widths) / (peak e), forward and backward each with its own e
permutation: t = bytes / (bandwidth e_permute)
collectives: t = t_curve * factor, the curve being the one measured on the same chip; the factor
makes a large message over a whole node as fast as the source found it

A share of attention above that of plain products counts all pairs of a causal mask, those it
forbids included: attention is made of the same products and does its softmax besides. No kernel
measured on a B200 reaches 1588 TFLOP/s of causal pairs, which 0.706 of the peak would be: the
fastest one reaches 1311 (16,384 tokens, 64 heads), and 790 to 946 at 4096 tokens, half of 1588
being 794 (ai-dynamo/aiconfigurator @095f58a, measured tables of three libraries).
"""

from dataclasses import dataclass

from moesim.model.operators import AttentionCore, all_pairs

PERMUTATIONS = frozenset({"permute", "unpermute", "sort_by_expert", "sort_by_source"})
"""Operators that a share for permutations stands for, with their backward kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Shares of the datasheet peaks and what they count; None where a source is silent."""

    attention_backward_fraction: float | None = None
    permute_fraction: float | None = None
    all_pairs: bool = False
    """Whether the shares of attention count the pairs that a mask forbids."""
    collectives: tuple[tuple[str, float], ...] = ()
    """Seconds over those of the measured curve, by the kind of a collective."""


def attention_fraction(core: AttentionCore, forward: float, stated: Stated | None) -> float:
    """Return the share of the peak that the pairs a mask lets through reach in `core`."""
    if stated is None:
        return forward
    share = forward
    if core.qk_products > 1 and stated.attention_backward_fraction is not None:
        share = stated.attention_backward_fraction
    if not stated.all_pairs or not core.pairs:
        return share
    return share * core.pairs * core.heads / all_pairs(core)


def memory_fraction(name: str, plain: float, stated: Stated | None) -> float:
    """Return the share of the memory bandwidth that the pointwise operator `name` reaches."""
    permutes = name.removesuffix("_grad") in PERMUTATIONS
    if stated is None or stated.permute_fraction is None or not permutes:
        return plain
    return stated.permute_fraction


def factor(kind: str, stated: Stated | None) -> float:
    """Return the seconds of a collective over those of its measured curve."""
    return 1.0 if stated is None else dict(stated.collectives).get(kind, 1.0)
