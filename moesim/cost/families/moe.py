"""Seconds of the experts of one MoE layer on one rank: permute, up, activation, down, finalize.

t = layer + select * tokens * experts / memory + shuffled bytes / (shuffle * memory)
    + product up + activated bytes / (shuffle * memory) + product down.
A grouped product pads the rows of each expert to whole tiles, runs the tiles in waves, and reads
the weights of the experts that have rows: the same tiles, waves and overlap as a dense product
(`tiles`). Structure: NVIDIA TensorRT-LLM, cutlass_kernels/moe_gemm; the constants are fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from moesim.cost.curves import Array, Chip, Curve, Family, Parameters, Samples, log_residual
from moesim.cost.families.moe_loads import (
    LOAD_COLUMNS,
    busy_experts,
    equal_loads,
    summarise,
    with_loads,
)
from moesim.cost.families.number_types import NUMBER_TYPES, OUTPUT_BYTES, peak_flop_per_s
from moesim.cost.families.tiles import (
    START,
    Rates,
    overlapped_s,
    rates,
    tile_s_per_k,
    traffic_s,
    waves,
)
from moesim.cost.sites import Layout, Places, Sites, evaluate_sites, nearest
from moesim.cost.surface import evaluate, octaves

_TILES = ((16, 128), (64, 128), (128, 128), (128, 256))
"""Rows by columns of the output that one compute unit works on, narrow for few rows."""
_SELECT_BYTES = 4.0
"""An fp32 router weight of each token and expert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertShape:
    """The experts of one layer as one rank holds them."""

    hidden: int
    width: int
    """Of one expert on this rank: its ffn divided by the tensor parallelism."""
    num_experts: int
    """Of the layer, over all ranks: the router chooses among them."""
    tokens: int
    """Of the whole expert-parallel group."""
    gated: bool = True
    ranks: int = 1
    """Over which the experts are spread evenly."""
    top_k: int | None = None
    """Experts of each token; None: as many as there are rows for each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParts:
    """What the seconds of one layer consist of; their sum is that of the layer."""

    fixed_s: float
    """Launches and selection."""
    up_s: float
    activation_s: float
    down_s: float
    shuffle_s: float
    """Permute and finalize."""


def _product_s(rate: Rates, load: Samples, n: Array, k: Array) -> Array:
    """Return the seconds of a grouped product, from load columns."""
    number = rate.number
    out, best = OUTPUT_BYTES, np.full(np.shape(load["routed"]), np.inf)
    for tile in _TILES:
        tiles = load[f"blocks_{tile[0]}"] * np.ceil(n / tile[1])
        seconds = waves(rate, tiles / rate.units) * (k * tile_s_per_k(rate, tile) + rate.tile_s)
        best = np.minimum(best, np.where(tiles > 0, seconds, 0.0))
    moved = load["routed"] * (k * number.activation_bytes + n * out)
    moved = moved + load["active"] * n * k * number.weight_bytes
    busy = moved > 0
    return np.where(busy, overlapped_s(rate, best, traffic_s(rate, np.where(busy, moved, 1.0))), 0)


def _parts(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> dict[str, Array]:
    load = with_loads(samples)
    rate = rates(chip, dtype, parameters)
    number = rate.number
    hidden, width = load["hidden_size"], load["expert_ffn_size"] / load["tp_size"]
    matrices = 1.0 + load["gated"]
    per_byte = 1.0 / (parameters["shuffle"] * chip.memory_bandwidth_bytes_per_s)
    permuted = hidden * (2.0 + number.activation_bytes + 2.0 * OUTPUT_BYTES)
    activated = width * (matrices * OUTPUT_BYTES + number.activation_bytes)
    chosen = load["num_tokens"] * load["num_experts"] * _SELECT_BYTES
    selection = parameters["select"] * chosen / chip.memory_bandwidth_bytes_per_s
    return {
        "fixed_s": parameters["layer_s"] + selection,
        "up_s": _product_s(rate, load, matrices * width, hidden),
        "activation_s": load["routed"] * activated * per_byte,
        "down_s": _product_s(rate, load, hidden, width),
        "shuffle_s": load["routed"] * permuted * per_byte,
    }


def expert_layer_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of each layer by the formula above.

    Samples: hidden_size, expert_ffn_size, tp_size, gated, num_tokens, num_experts, and either the
    load columns or top_k, ep_size and routing (`moe_loads.with_loads`).
    """
    parts = _parts(samples, chip, dtype, parameters)
    return np.asarray(sum(parts.values()), dtype=np.float64)


def bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return what no kernel can beat: FLOP over peak, and the active weights read once."""
    load = with_loads(samples)
    width = load["expert_ffn_size"] / load["tp_size"]
    weights = (2.0 + load["gated"]) * load["hidden_size"] * width
    compute = 2.0 * load["routed"] * weights / peak_flop_per_s(chip, dtype)
    streamed = load["active"] * weights * NUMBER_TYPES[dtype].weight_bytes
    return np.maximum(compute, streamed / chip.memory_bandwidth_bytes_per_s)


def start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins."""
    return {"layer_s": 2e-5, "select": 5.0, "shuffle": 0.5, **START}


def coordinates(samples: Samples) -> tuple[Array, ...]:
    """Return log2 of rows per busy expert, local width, hidden size and busy experts."""
    load = with_loads(samples)
    busy = busy_experts(load)
    width = load["expert_ffn_size"] / load["tp_size"]
    rows = np.maximum(load["routed"] / busy, 1.0)
    return np.log2(rows), np.log2(width), np.log2(load["hidden_size"]), np.log2(busy)


def samples_at(places: tuple[Array, ...]) -> Samples:
    """Return layers at places of the surface: gated, equal loads, nothing dropped."""
    rows, width, hidden, busy = (np.exp2(place) for place in places)
    one = np.ones_like(rows)
    loads = equal_loads(busy, rows)
    return {
        "hidden_size": hidden, "expert_ffn_size": width, "tp_size": one, "gated": one,
        "num_tokens": loads["routed"], "num_experts": busy, **loads,
    }  # fmt: skip


def site_places(samples: Samples) -> Places:
    """Return log2 of hidden size, local width, experts of the rank and top_k; then of its rows."""
    load = with_loads(samples)
    routed, ranks = np.maximum(load["routed"], 1.0), load.get("ep_size", 1.0)
    chosen = load["top_k"] if "top_k" in load else routed / np.maximum(load["num_tokens"], 1.0)
    width = load["expert_ffn_size"] / load["tp_size"]
    sizes = (load["hidden_size"], width, load["num_experts"] / ranks, chosen, routed)
    return tuple(np.log2(np.maximum(size, _LEAST_SIZE)) for size in sizes)


_LEAST_SIZE = 1e-9


def samples_at_site(places: Places, busy_share: float = 1.0) -> Samples:
    """Return layers at places among sites: gated, equal loads of a share of the experts."""
    hidden, width, experts, top_k, rows = (np.exp2(place) for place in places)
    one, busy = np.ones_like(rows), np.minimum(np.maximum(experts * busy_share, 1.0), rows)
    return {
        "hidden_size": hidden, "expert_ffn_size": width, "tp_size": one, "gated": one,
        "num_tokens": rows / top_k, "num_experts": experts, "top_k": top_k,
        **equal_loads(busy, rows / busy),
    }  # fmt: skip


_BUSY_SHARE = 0.125
"""Of the experts, under skew: then weights already read meet more rows."""

SITES = Layout(
    names=("hidden", "width", "experts", "top_k"),
    reach=(3.0, 6.0, 1.0, 1.0),
    step=1.5,
    most=64,
    places=site_places,
    samples_at=(samples_at_site, partial(samples_at_site, busy_share=_BUSY_SHARE)),
    rising=((0, 0, 0, 0, 0.5), (0, 1, 0, 0, 0), (1, 0, 0, 0, 0)),
)

_QUANTUM = {
    "rows": 0.06, "hidden_size": 0.04, "expert_ffn_size": 0.04, "experts": 0.25, "moved_row": 0.15,
    "even_rows_at_site": 0.12, "skewed_rows_at_site": 0.3,
}  # fmt: skip
"""`experts`: one more with rows of its own, which moves the mean that kernels are chosen by.
`moved_row`: between two experts with equal rows, which may save a tile (of the measured neighbours
in tokens 0.1 % fall by more than 0.32). At a site a change of kernels stays: of 313,000
measured neighbours in tokens 1.9 % fall by more than 0.06, 1.0 % by more than 0.1, 0.1 % by more
than 0.3; `skewed`: an eighth of the experts is busy, of which balanced rows say little."""

MOE = Family(
    name="moe",
    table="moe",
    physics=expert_layer_s,
    start=start,
    coordinates=coordinates,
    axes=(
        octaves("log2_rows_per_expert", 0.0, 15.0, 1.0),
        octaves("log2_width", 5.0, 15.0, 2.0),
        octaves("log2_hidden", 10.0, 14.0, 2.0),
        octaves("log2_active", 0.0, 9.0, 3.0),
    ),
    bound_s=bound_s,
    samples_at=samples_at,
    rising=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (-1, 0, 0, 1)),
    quantum=_QUANTUM,
    quantum_beyond=0.4,
    sites=SITES,
)


def grouped_product_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of one grouped product. Samples: n, k, and load columns."""
    rate = rates(chip, dtype, parameters)
    return _product_s(rate, samples, samples["n"], samples["k"]) + parameters["launch_s"]


def _grouped_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    weights = samples["n"] * samples["k"]
    compute = 2.0 * samples["routed"] * weights / peak_flop_per_s(chip, dtype)
    streamed = samples["active"] * weights * NUMBER_TYPES[dtype].weight_bytes
    return np.maximum(compute, streamed / chip.memory_bandwidth_bytes_per_s)


def _grouped_start(chip: Chip, dtype: str) -> dict[str, float]:
    return {"launch_s": 3e-6, **START}


def _grouped_coordinates(samples: Samples) -> tuple[Array, ...]:
    rows = np.maximum(samples["routed"] / busy_experts(samples), 1.0)
    return np.log2(rows), np.log2(samples["n"]), np.log2(samples["k"])


def _grouped_samples_at(places: tuple[Array, ...]) -> Samples:
    rows, n, k = (np.exp2(place) for place in places)
    return {"n": n, "k": k, **equal_loads(np.full_like(rows, _USUAL_EXPERTS), rows)}


_USUAL_EXPERTS = 16.0


GROUPED_GEMM = Family(
    name="grouped_gemm",
    table="moe_grouped_gemm",
    physics=grouped_product_s,
    start=_grouped_start,
    coordinates=_grouped_coordinates,
    axes=(
        octaves("log2_rows_per_expert", 0.0, 15.0, 1.0),
        octaves("log2_n", 7.0, 15.0, 2.0),
        octaves("log2_k", 7.0, 15.0, 2.0),
    ),
    bound_s=_grouped_bound_s,
    samples_at=_grouped_samples_at,
    rising=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    quantum={"rows": 0.06, "n": 0.04, "k": 0.04},
    quantum_beyond=0.4,
)


def layer_parts_s(
    rows: Sequence[Sequence[float] | Array], shape: ExpertShape, chip: Chip, curve: Curve
) -> LayerParts:
    """Return the parts of one layer whose experts have `rows`, averaged over draws of them.

    Each of `rows` is a vector over the experts of this rank; a single draw is a list of one.
    """
    samples = _samples(rows, shape)
    parts = _parts(samples, chip, curve.dtype, curve.parameters)
    whole = np.asarray(sum(parts.values()), dtype=np.float64)
    factor = np.exp(log_residual(MOE, curve, samples, chip)) * np.ones_like(whole)
    factor = np.maximum(factor, bound_s(samples, chip, curve.dtype) / whole)
    return LayerParts(**{name: float(np.mean(part * factor)) for name, part in parts.items()})


def layer_s(rows: Sequence[float] | Array, shape: ExpertShape, chip: Chip, curve: Curve) -> float:
    """Return the seconds of one layer whose experts on this rank have `rows`."""
    parts = layer_parts_s([rows], shape, chip, curve)
    products = parts.up_s + parts.activation_s + parts.down_s
    return parts.fixed_s + products + parts.shuffle_s


def _samples(rows: Sequence[Sequence[float] | Array], shape: ExpertShape) -> Samples:
    loads = [summarise(vector) for vector in rows]
    same = {
        "hidden_size": shape.hidden,
        "expert_ffn_size": shape.width,
        "tp_size": 1,
        "gated": shape.gated,
        "num_tokens": shape.tokens,
        "num_experts": shape.num_experts,
        "ep_size": shape.ranks,
        **({"top_k": shape.top_k} if shape.top_k else {}),
    }
    columns = {name: np.full(len(loads), float(value)) for name, value in same.items()}
    columns.update({name: np.asarray([load[name] for load in loads]) for name in LOAD_COLUMNS})
    return columns


def grouped_gemm_s(
    rows: Sequence[float] | Array, n: int, k: int, chip: Chip, curve: Curve
) -> float:
    """Return the seconds of one [rows[e], k] x [k, n] per expert, by a curve of this module.

    A curve of whole layers lends its tiles, rates, surface and sites (at width n, where k is the
    hidden size; experts and top_k are those of the nearest site); it knows no launch of one product
    alone, so that none is counted.
    """
    load = {name: np.asarray([value]) for name, value in summarise(rows).items()}
    samples = {**load, "n": np.asarray([float(n)]), "k": np.asarray([float(k)])}
    parameters = {"launch_s": 0.0, **curve.parameters}
    seconds = grouped_product_s(samples, chip, curve.dtype, parameters)
    if curve.surface is not None:
        seconds = seconds * np.exp(evaluate(curve.surface, product_places(curve, samples)))
    if curve.sites is not None:
        seconds = seconds * np.exp(
            evaluate_sites(curve.sites, _product_sites(curve.sites, samples))
        )
    return float(np.maximum(seconds, _grouped_bound_s(samples, chip, curve.dtype))[0])


def product_places(curve: Curve, samples: Samples) -> tuple[Array, ...]:
    """Return where a product lies on the surface of a grouped or of a layer curve."""
    rows, n, k = _grouped_coordinates(samples)
    if curve.family == GROUPED_GEMM.name:
        return rows, n, k
    return rows, np.minimum(n, k), np.maximum(n, k), np.log2(busy_experts(samples))


def _product_sites(sites: Sites, samples: Samples) -> Places:
    """Return where a product lies among the sites of a layer curve."""
    n, k = np.log2(samples["n"]), np.log2(samples["k"])
    known = {0: np.maximum(n, k), 1: np.minimum(n, k), 2: np.log2(busy_experts(samples))}
    place = nearest(sites, known)
    return *known.values(), place[3], np.log2(np.maximum(samples["routed"], 1.0))
