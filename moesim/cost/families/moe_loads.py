"""Rows per expert of measured MoE layers, and what of them the time of grouped products needs."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.curves import Array, Samples

BLOCK_ROWS = (16, 64, 128)
"""Heights of the tiles that grouped products choose among."""

LOAD_COLUMNS = ("routed", "active", "roots", "blocks_16", "blocks_64", "blocks_128")
"""Of one rank: rows, experts that have any, the sum of the square roots of their rows, and tiles of
each height that hold them."""

_DRAWS = 5
"""The collector averages five draws of a power law."""


def summarise(rows: Sequence[float] | Array) -> dict[str, float]:
    """Return the load columns of one vector of rows per expert."""
    vector = np.asarray(rows, dtype=np.float64)
    vector = vector[vector > 0.0]
    found = {"routed": float(vector.sum()), "active": float(len(vector))}
    found["roots"] = float(np.sqrt(vector).sum())
    for height in BLOCK_ROWS:
        found[f"blocks_{height}"] = float(np.ceil(vector / height).sum())
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


def power_law_rows(
    tokens: float, top_k: float, experts: float, ranks: float, exponent: float
) -> list[Array]:
    """Return draws of the rows of each expert of the busiest rank under a power law.

    Expert popularity x has density x^-a on [1, 0.8 tokens], or on [0.01, 2] with no more choices
    than experts; popularity is scaled to tokens * top_k rows and rounded, and the rank with most
    rows is timed. Source: NVIDIA aiconfigurator, collector/helper.py, power_law_logits_v3. The
    same arguments give the same draws.
    """
    count, pairs = int(experts), round(tokens * top_k)
    low, high = (1.0, max(0.8 * tokens, 1.0 + 1e-6)) if pairs > count else (0.01, 2.0)
    generator = rng.stream(0, f"power law {tokens} {top_k} {experts} {exponent}")
    power = 1.0 - exponent if abs(exponent - 1.0) > 1e-6 else -1e-6
    draws = []
    for _ in range(_DRAWS):
        share = generator.random(count)
        popularity = ((high**power - low**power) * share + low**power) ** (1.0 / power)
        rows = _to_whole(popularity / popularity.sum() * pairs, pairs)
        draws.append(_busiest(np.minimum(rows, max(1.0, tokens)), max(1, int(count / ranks))))
    return draws


def _to_whole(wanted: Array, total: int) -> Array:
    """Round to whole rows of the right sum: what is missing goes to the largest remainders.

    So experts that would have had half a row come first, as the few-token times of the collector
    show: 4 tokens of 8 choices among 256 experts read the weights of about 32.
    """
    rows = np.round(wanted)
    difference = int(total - rows.sum())
    order = np.argsort(rows - wanted, kind="stable")
    if difference > 0:
        rows += difference // len(rows)
        rows[order[: difference % len(rows)]] += 1.0
    elif difference < 0:
        can = order[::-1][rows[order[::-1]] > 0]
        rows[can[: min(-difference, len(can))]] -= 1.0
    return rows


def _busiest(rows: Array, local: int) -> Array:
    ranks = rows[: len(rows) // local * local].reshape(-1, local)
    busiest: Array = ranks[int(np.argmax(ranks.sum(axis=1)))]
    return busiest


def with_loads(samples: Samples) -> Samples:
    """Return the samples with their load columns, drawn by routing where they lack them.

    Needs num_tokens, top_k, num_experts, ep_size and routing (0: even, else the exponent of the
    power law); num_expert_slots, where given, are the experts that rows are spread over evenly.
    """
    if "routed" in samples:
        return samples
    names = ("num_tokens", "top_k", "num_experts", "ep_size", "routing")
    shapes = np.stack([np.asarray(samples[name], dtype=np.float64) for name in names], axis=1)
    if "num_expert_slots" in samples:
        even = shapes[:, 4] == 0
        shapes[even, 2] = np.maximum(shapes[even, 2], samples["num_expert_slots"][even])
    unique, place = np.unique(shapes, axis=0, return_inverse=True)
    loads = [_mean_load(shape) for shape in unique]
    found = {name: np.asarray([load[name] for load in loads]) for name in LOAD_COLUMNS}
    place = place.ravel()
    return {**samples, **{name: column[place] for name, column in found.items()}}


def _mean_load(shape: NDArray[np.float64]) -> Mapping[str, float]:
    tokens, top_k, experts, ranks, exponent = (float(value) for value in shape)
    if exponent == 0:
        return summarise(even_rows(tokens, top_k, experts, ranks))
    draws = [summarise(d) for d in power_law_rows(tokens, top_k, experts, ranks, exponent)]
    return {name: float(np.mean([draw[name] for draw in draws])) for name in LOAD_COLUMNS}
