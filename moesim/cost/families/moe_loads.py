"""Rows per expert of measured MoE layers, and what of them the time of grouped products needs."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.cost.curves import Array, Samples
from moesim.cost.families.moe_draws import LEFT_OVER, Draw, busiest_rows
from moesim.cost.families.moe_groups import even_grouped_rows

BLOCK_ROWS = (16, 64, 128)
"""Heights of the tiles that grouped products choose among."""

LOAD_COLUMNS = ("routed", "active", "roots", "blocks_16", "blocks_64", "blocks_128")
"""Of one rank: rows, experts that have any, the sum of the square roots of their rows, and tiles of
each height that hold them."""


def summarise(rows: Sequence[float] | Array) -> dict[str, float]:
    """Return the load columns of one vector of rows per expert."""
    columns = _columns(np.asarray(rows, dtype=np.float64))
    return {name: float(column) for name, column in columns.items()}


def _columns(rows: Array) -> dict[str, Array]:
    """Return the load columns of rows per expert along the last axis."""
    found = {"routed": rows.sum(axis=-1), "active": (rows > 0.0).sum(axis=-1)}
    found["roots"] = np.sqrt(rows).sum(axis=-1)
    for height in BLOCK_ROWS:
        found[f"blocks_{height}"] = np.ceil(rows / height).sum(axis=-1)
    return found


def equal_loads(experts: Array, rows: Array) -> dict[str, Array]:
    """Return the load columns of so many experts with so many rows each."""
    blocks = {f"blocks_{height}": experts * np.ceil(rows / height) for height in BLOCK_ROWS}
    sums = {"routed": experts * rows, "active": experts, "roots": experts * np.sqrt(rows)}
    return {**sums, **blocks}


def busy_experts(load: Samples) -> Array:
    """Return how many equally loaded experts the loads amount to: (sum sqrt(rows))^2 / rows.

    At least 1. An expert with next to no rows hardly counts; n experts with equal rows count n.
    """
    return np.maximum(np.square(load["roots"]) / np.maximum(load["routed"], 1e-300), 1.0)


def even_rows(tokens: float, top_k: float, experts: float, ranks: float) -> Array:
    """Return the rows of each expert of the busiest rank when choices go round in turn.

    tokens * top_k choices over all experts, the remainder to the first of them: with fewer
    choices than experts each chosen expert has one row, and the others none.
    """
    local = max(1, int(experts / ranks))
    pairs = round(tokens * top_k)
    each, left = divmod(pairs, max(1, int(experts)))
    # what is left over is spread over the ranks as evenly as it goes
    extra = min(local, int(np.ceil(left / max(1.0, ranks))))
    rows = np.full(local, float(each))
    rows[:extra] += 1.0
    return rows


_SHAPE = ("num_tokens", "top_k", "num_experts", "ep_size", "routing")


def with_loads(samples: Samples) -> Samples:
    """Return the samples with their load columns, drawn by routing where they lack them.

    Needs num_tokens, top_k, num_experts, ep_size and routing (0: even, else the exponent of the
    power law; times averaged over draws are within 1 % of those of the mean load);
    num_expert_slots, where given, are the experts that rows are spread over evenly. Where given,
    drawn_left_over is the number of a rule in `moe_draws.LEFT_OVER`, and experts that a power law
    of drawn_exponent makes popular are placed by EPLB in drawn_slots, if any; drawn_in_groups tells
    rows whose tokens are limited to groups of experts (`moe_groups`).
    """
    if "routed" in samples:
        return samples
    unique, place = _shapes(samples)
    loads = [{name: column.mean() for name, column in _drawn(s).items()} for s in unique]
    return {**samples, **{name: _column(loads, name)[place] for name in LOAD_COLUMNS}}


def with_each_load(samples: Samples, draws: int) -> list[Samples]:
    """Return the samples with the load columns of the first draw, of the second, and so on."""
    unique, place = _shapes(samples)
    drawn = [_drawn(shape) for shape in unique]
    each: list[Samples] = []
    for number in range(draws):
        loads = [{name: c[number % len(c)] for name, c in load.items()} for load in drawn]
        columns = {name: _column(loads, name)[place] for name in LOAD_COLUMNS}
        each.append({**samples, **columns})
    return each


def _column(loads: Sequence[Mapping[str, float]], name: str) -> Array:
    return np.asarray([load[name] for load in loads], dtype=np.float64)


def _shapes(samples: Samples) -> tuple[Array, NDArray[np.int64]]:
    """Return what decides a load, each once, and which of them every sample has."""
    columns = [np.asarray(samples[name], dtype=np.float64) for name in _SHAPE]
    zeros = np.zeros(len(columns[0]))
    slots = samples.get("drawn_slots", zeros)
    columns[4] = np.where(slots > 0, samples.get("drawn_exponent", zeros), columns[4])
    drawn = (samples.get(name, zeros) for name in ("drawn_left_over", "drawn_in_groups"))
    shapes = np.stack([*columns, *drawn, slots], axis=1)
    if "num_expert_slots" in samples:
        even = shapes[:, 4] == 0
        shapes[even, 2] = np.fmax(shapes[even, 2], samples["num_expert_slots"][even])
    unique, place = np.unique(shapes, axis=0, return_inverse=True)
    return unique, place.ravel()


def _drawn(shape: Array) -> dict[str, Array]:
    """Return the load columns of every draw; even routing draws once."""
    tokens, top_k, experts, ranks, exponent, rule, grouped, slots = map(float, shape)
    if exponent == 0 and grouped:
        local = max(1, int(experts / ranks))
        return _columns(even_grouped_rows(int(tokens), int(experts))[None, :local])
    if exponent == 0:
        return _columns(even_rows(tokens, top_k, experts, ranks)[None])
    draw = Draw(
        tokens=tokens, top_k=top_k, experts=experts, ranks=ranks, exponent=exponent,
        left_over=LEFT_OVER[int(rule)], grouped=bool(grouped), slots=slots,
    )  # fmt: skip
    return _columns(busiest_rows(draw))
