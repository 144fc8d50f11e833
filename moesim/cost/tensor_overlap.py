"""Tensor-parallel gathers and scatters that run beside a matrix product of the same layer.

With sequence parallelism a layer gathers its input before a product and scatters the output of
another. A gather goes beside the product that follows it, which begins with the rows that are there
already; a scatter beside the product before it. Forward, the rows that come last are scattered
alone: with p ranks both are cut in p pieces, and

    t = product / p + together(product (p - 1) / p, scatter (p - 1) / p) + scatter / p.

Backward, a scatter runs beside the gradients of the weights, which do not need it. together is that
of `exchange_overlap`. Sources: tp_comm_overlap, tp_comm_overlap_ag, tp_comm_overlap_rs and
tp_comm_bulk_dgrad in model_parallel_config.py of megatron-core 0.16.1; Wang et al., "Overlap
Communication with Dependent Computation via Decomposition", ASPLOS 2023, for the pieces (from
memory, unchecked). Assumed: transfers are made by copy engines and take no compute units; their
rate beside a product is that of any communication beside compute.
"""

from collections.abc import Sequence
from dataclasses import replace

from moesim.cost.exchange_overlap import together_s
from moesim.cost.times import Part
from moesim.cost.two_streams import Interference
from moesim.model.operators import Collective, Gemm, Operator

_OVERLAPPED = ("all_gather", "reduce_scatter")


def beside_products(
    operators: Sequence[Operator], parts: list[Part], rate: float, ranks: int
) -> list[Part]:
    """Return `parts`, one per operator, with what is left of gathers and scatters beside products.

    `rate` is that of a transfer beside compute, `ranks` the tensor-parallel degree.
    """
    cost = Interference(rate, taken=0.0)
    found = list(parts)
    products = {n for n, one in enumerate(operators) if isinstance(one, Gemm)}
    for place, one in enumerate(operators):
        if not isinstance(one, Collective) or one.group != "tp" or one.kind not in _OVERLAPPED:
            continue
        partner = _partner(place, products, one, len(operators))
        if partner is None:
            continue
        products.remove(partner)
        pieces = ranks if one.name == "tp_reduce_scatter" else 0
        times = (parts[partner].seconds, parts[place].seconds)
        found[place] = replace(parts[place], seconds=_left_s(*times, cost, pieces))
    return found


def _partner(place: int, products: set[int], one: Collective, end: int) -> int | None:
    """Return the product beside which a transfer runs; each product has room for one."""
    near = range(place + 1, end) if one.kind == "all_gather" else range(place - 1, -1, -1)
    return next((n for n in near if n in products), None)


def _left_s(product_s: float, transfer_s: float, cost: Interference, pieces: int) -> float:
    """Return by how much a product takes longer with a transfer beside it, in so many pieces."""
    first = 1 / pieces if pieces else 0.0
    both_s = together_s(product_s * (1 - first), transfer_s * (1 - first), cost)
    return both_s + (product_s + transfer_s) * first - product_s
