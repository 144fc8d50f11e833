"""Every family by name, and how each is asked for seconds."""

from moesim.cost.curves import Array, Chip, Curve, Family, Samples, predict_s
from moesim.cost.families import (
    attention,
    collectives,
    elementwise,
    exchange,
    gemm,
    mla,
    mla_bmm,
    moe,
)
from moesim.cost.families.moe_loads import with_loads

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        gemm.GEMM,
        moe.MOE,
        moe.GROUPED_GEMM,
        attention.PREFILL,
        attention.DECODE,
        mla.MLA_PREFILL_KERNEL,
        mla.MLA_PREFILL_MODULE,
        mla.MLA_ABSORBED_PREFILL_KERNEL,
        mla.MLA_ABSORBED_PREFILL_MODULE,
        mla.MLA_DECODE_KERNEL,
        mla.MLA_DECODE_MODULE,
        mla_bmm.MLA_BMM,
        *elementwise.ELEMENTWISE.values(),
        *collectives.FAMILIES,
        exchange.FORWARDED,
        exchange.DIRECT,
        exchange.DISTINCT,
        exchange.PREPARE,
    )
}
"""The families by name."""

_COLLECTIVES = {family.name for family in collectives.FAMILIES}
_EXCHANGES = {"forwarded", "direct", "distinct", "prepare"}


def seconds_of(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return the seconds of each sample, within the family's bounds."""
    if family.name in _COLLECTIVES:
        return collectives.seconds(family, curve, samples, chip)
    if family.name in _EXCHANGES:
        return exchange.seconds(family, curve, samples, chip)
    return predict_s(family, curve, samples, chip)


def bound_of(family: Family, samples: Samples, chip: Chip, dtype: str) -> Array | None:
    """Return the seconds that the datasheet allows at best; None where it says nothing.

    That of an all-reduce is that of a switch that reduces. Only counting and sharing destinations
    before an exchange (`prepare`) has none: its bytes are next to nothing.
    """
    if family.bound_s is not None:
        return family.bound_s(samples, chip, dtype)
    if family.name in _COLLECTIVES:
        collective = collectives.collective_of(family)
        return collectives.bound_s(collective, samples, chip, in_switch=True)
    if family.name in _EXCHANGES - {"prepare"}:
        return exchange.bound_s(family.name, samples, chip, dtype)
    return None


def prepared(family: str, samples: Samples) -> Samples:
    """Return samples with what is drawn once for all evaluations: the loads of experts."""
    return with_loads(samples) if family == moe.MOE.name else samples
