"""Tiles of heads, waves and the L2 cache under latent attention, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.cost.curve_fit import fit_curve
from moesim.cost.curves import Array, Chip
from moesim.cost.families import mla, mla_bmm, mla_decode
from moesim.cost.families.attention import decode_start, decode_work_s
from moesim.cost.families.mla_decode import START, TRIES

CHIP = Chip(
    name="round", vendor="nvidia", peak_flop_per_s={"bf16": 1e15, "fp8": 2e15},
    memory_bandwidth_bytes_per_s=4e12, compute_units=100, l2_bytes=5e7,
)  # fmt: skip
UNBOUND = replace(CHIP, memory_bandwidth_bytes_per_s=1e30)
BUSY = START | {
    "launch_s": 0.0, "combine_s": 0.0, "item_s": 0.0, "pair_excess": 0.0, "compute_excess": 0.0,
    "split_keys": 1e9, "blend": 0.0,
}  # fmt: skip


def columns(**values: float) -> dict[str, Array]:
    return {name: np.array([float(value)]) for name, value in values.items()}


def decode_s(heads: float, batch: float, parameters: dict[str, float]) -> float:
    shape = columns(batch_size=batch, kv_tokens=1000, local_num_heads=heads)
    return float(mla.decode_s(shape, UNBOUND, "bf16", parameters)[0])


def tile_s(rows: float) -> float:
    """One unit of 100 at 1e13 FLOP/s: 1000 keys, scores of 576 and sums of 512."""
    return 2 * rows * 1000 * (576 + 512) / 1e13


def test_heads_fill_tiles_and_tiles_fill_waves() -> None:
    narrow = BUSY | {"tile_rows": 16.0, "wide_rows": 16.0}
    assert decode_s(1, 100, narrow) == pytest.approx(tile_s(16))
    assert decode_s(32, 100, narrow) == pytest.approx(2 * tile_s(16))
    assert decode_s(32, 101, narrow) == pytest.approx(3 * tile_s(16))
    assert decode_s(32, 75, narrow | {"blend": 1.0}) == pytest.approx(1.5 * tile_s(16))


def test_the_faster_tile_of_a_menu_is_taken() -> None:
    menu = BUSY | {"tile_rows": 16.0, "wide_rows": 128.0}
    assert decode_s(128, 100, menu) == pytest.approx(tile_s(128))  # one wave instead of eight
    assert decode_s(128, 10, menu) == pytest.approx(tile_s(16))  # 80 units instead of 10
    assert decode_s(32, 1000, menu) == pytest.approx(20 * tile_s(16))  # too few heads to be wide


def test_keys_are_split_over_the_units_that_would_idle() -> None:
    split = BUSY | {"tile_rows": 64.0, "wide_rows": 64.0, "split_keys": 10.0}
    assert decode_s(64, 1, split) == pytest.approx(tile_s(64) / 100)
    assert decode_s(64, 50, split) == pytest.approx(tile_s(64) / 2)


def test_units_of_a_pair_share_their_way_where_both_work() -> None:
    alone = BUSY | {"tile_rows": 64.0, "wide_rows": 64.0, "pair_excess": 0.5}
    assert decode_s(64, 50, alone) == pytest.approx(tile_s(64))
    assert decode_s(64, 80, alone) == pytest.approx(1.5 * tile_s(64))
    assert decode_s(64, 120, alone) == pytest.approx(2.5 * tile_s(64))


@pytest.mark.parametrize(("batch", "share"), [(1, 0.25), (1000, 1.0)])
def test_a_cache_that_fits_into_l2_is_read_from_there(batch: int, share: float) -> None:
    reads = START | {
        "launch_s": 0.0, "combine_s": 0.0, "item_s": 0.0, "unit_slowness": 0.0,
        "compute_excess": 0.0, "cache_excess": 0.0, "query_excess": -1.0, "l2_odds": 1 / 3,
        "split_keys": 1e9,
    }  # fmt: skip
    fast = replace(CHIP, peak_flop_per_s={"bf16": 1e30, "fp8": 1e30})
    shape = columns(batch_size=batch, kv_tokens=2000, local_num_heads=1)
    moved = batch * 2000 * 576 * 2
    found = mla.decode_s(shape, fast, "bf16", reads)[0]
    assert found == pytest.approx(share * moved / 4e12, rel=1e-3)


def test_profiles_without_tiles_keep_their_formula() -> None:
    shape = columns(batch_size=32, kv_tokens=4096, local_num_heads=128)
    old = decode_start(CHIP, "bf16")
    work = mla.decode_work(shape, CHIP, "bf16")
    assert mla.decode_s(shape, CHIP, "bf16", old) == decode_work_s(work, CHIP, "bf16", old)


def test_a_fit_leaves_rows_of_tiles_whole() -> None:
    generator = np.random.Generator(np.random.Philox(key=5))
    samples = {
        name: np.exp2(generator.integers(0, high, 300)).astype(float)
        for name, high in [("batch_size", 10), ("kv_tokens", 17), ("local_num_heads", 8)]
    }
    truth = START | {"tile_rows": 16.0, "wide_rows": 128.0}
    seconds = mla.decode_s(samples, CHIP, "bf16", truth)
    curve = fit_curve(mla.MLA_DECODE_KERNEL, samples, seconds, CHIP, "bf16")
    menus = {(one["tile_rows"], one["wide_rows"]) for one in TRIES}
    assert (curve.parameters["tile_rows"], curve.parameters["wide_rows"]) in menus
    assert mla_decode.COUNTS == ("tile_rows", "wide_rows")


def test_products_beyond_the_l2_cache_come_from_memory() -> None:
    parameters = mla_bmm.bmm_start(CHIP, "bf16") | {
        "launch_s": 0.0, "tile_s": 0.0, "memory_excess": 0.0, "l2_odds": 1 / 3, "overlap": 20.0,
    }  # fmt: skip
    fast = replace(CHIP, peak_flop_per_s={"bf16": 1e30})
    for tokens, share in ((16, 0.25), (16384, 1.0)):
        shape = columns(num_tokens=tokens, local_num_heads=64)
        moved = 64 * 128 * 512 * 2 + 2 * tokens * 64 * 640
        found = mla_bmm.bmm_s(shape, fast, "bf16", parameters)[0]
        assert found == pytest.approx(share * moved / 4e12, rel=1e-3)


def test_products_are_tiles_in_waves() -> None:
    parameters = mla_bmm.bmm_start(CHIP, "bf16") | {
        "launch_s": 0.0, "compute_excess": 0.0, "blend": 0.0, "tile_s": 1e-6,
    }  # fmt: skip
    shape = columns(num_tokens=129, local_num_heads=64)  # 2 x 4 tiles of each head: 5.12 rounds
    tile = 2 * 128 * 128 * 512 / 4 / 1e13 + 1e-6
    found = mla_bmm.bmm_s(shape, UNBOUND, "bf16", parameters)[0]
    assert found == pytest.approx(6 * tile)


def test_products_of_profiles_without_the_share_of_l2_keep_their_formula() -> None:
    old = {
        "launch_s": 4e-6, "tile_s": 2e-7, "memory_excess": 0.0, "l2_slowness": 1.0,
        "compute_excess": 1.0,
    }  # fmt: skip
    shape = columns(num_tokens=128, local_num_heads=64)
    moved = 64 * 128 * 512 * 2 + 2 * 128 * 64 * 640
    flop = 2 * 128 * 64 * 128 * 512
    expected = 4e-6 + 2e-7 + moved / 4e12 + 2 * flop / 1e15
    assert mla_bmm.bmm_s(shape, CHIP, "bf16", old)[0] == pytest.approx(expected)
