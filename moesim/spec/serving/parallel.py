"""How a replica is cut over devices."""

from typing import Annotated, Literal

from pydantic import Field

from moesim.spec.base import Spec

Degree = Annotated[int, Field(ge=1, le=100_000)]


class ServingParallelSpec(Spec):
    """Degrees of one replica, which takes tp * dp * pp devices."""

    tp: Degree = 1
    """Tensor parallel ranks of attention and dense layers."""
    dp: Degree = 1
    """Attention data parallel ranks: each has its own requests, the experts are common."""
    ep: Degree = 1
    """Ranks over which experts are spread; the rest of tp * dp cuts each of them."""
    pp: Degree = 1
    """Pipeline stages."""
    dcp: Degree = 1
    """Decode context parallel ranks among those of tp: a sequence's cache is spread over them by
    tokens, where each would hold a copy (latent attention; more tp ranks than key/value heads).
    Queries and partial results travel instead. Takes no devices of its own."""
    exchange: (
        Literal["allgather_reducescatter", "deepep", "deepep_normal", "deepep_low", "one_sided"]
        | None
    ) = None
    """With dp above 1: how tokens reach experts on other ranks. allgather_reducescatter: all to
    all, sums back; deepep_normal, deepep_low: DeepEP's kernels for many and for few tokens; deepep:
    low up to 128 tokens a rank, else normal; one_sided: written over NVLink by the sender. Left
    out, the engine's default."""
    redundant_experts: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Copies of busy experts (EPLB): the ranks that hold experts are level then."""
