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
    exchange: (
        Literal["all_reduce", "allgather_reducescatter", "deepep_normal", "deepep_low"] | None
    ) = None
    """How tokens reach experts on other ranks; left out, the engine's default."""
