"""Attention: physics by hand, limits, masks, monotone in every size, parameters found again."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_parameters
from moesim.cost.curves import Array, Chip, Family, Parameters, Samples
from moesim.cost.families.attention import (
    DECODE,
    FLASH_ATTENTION_2,
    FLASH_ATTENTION_3,
    PREFILL,
    backward_s,
    decode_bound_s,
    decode_s,
    decode_start,
    prefill_bound_s,
    prefill_s,
    prefill_start,
)
from moesim.cost.families.attention_work import (
    cache_bytes,
    causal_pairs,
    core_samples,
    flop,
    prefill_work,
    tiles,
)
from moesim.model.operators import AttentionCore
from moesim.model.operators import flop as operator_flop

CHIP = Chip(
    name="round", vendor="nvidia", peak_flop_per_s={"bf16": 1e15, "fp8": 2e15},
    memory_bandwidth_bytes_per_s=4e12, compute_units=100, l2_bytes=5e7,
)  # fmt: skip
PLAIN = {
    "launch_s": 1e-6, "compute_excess": 0.0, "softmax_s": 0.0, "item_s": 0.0, "query_excess": 0.0,
    "cache_excess": 0.0, "token_s": 0.0, "overlap": 1e9, "unpacked_odds": 1e12, "late_spread": 0.0,
    "undivided_odds": 1e12,
}  # fmt: skip
PLAIN_DECODE = {
    "launch_s": 1e-6, "compute_excess": 0.0, "item_s": 0.0, "unit_slowness": 1e-3,
    "cache_excess": 0.0, "query_excess": 0.0, "overlap": 1e9, "split_keys": 128.0,
}  # fmt: skip


def columns(**values: float) -> dict[str, Array]:
    return {name: np.array([float(value)]) for name, value in values.items()}


def prefill(**changes: float) -> dict[str, Array]:
    shape = {
        "batch_size": 1, "seq_len": 2048, "num_heads": 32, "num_kv_heads": 8, "head_dim": 128,
        "sliding_window": 0, "past_kv_tokens": 0,
    }  # fmt: skip
    return columns(**(shape | changes))


def decode(**changes: float) -> dict[str, Array]:
    shape = {
        "batch_size": 64, "kv_tokens": 8192, "num_heads": 32, "num_kv_heads": 8, "head_dim": 128,
        "sliding_window": 0,
    }  # fmt: skip
    return columns(**(shape | changes))


def prefill_one(samples: Samples, parameters: Parameters = PLAIN) -> float:
    return float(prefill_s(samples, CHIP, "bf16", parameters)[0])


def decode_one(samples: Samples, parameters: Parameters = PLAIN_DECODE) -> float:
    return float(decode_s(samples, CHIP, "bf16", parameters)[0])


def test_pairs_of_causal_masks_and_windows() -> None:
    def brute(queries: int, keys: int, window: int) -> int:
        contexts = range(keys - queries + 1, keys + 1)
        return sum(min(c, window) if window else c for c in contexts)

    for queries, keys, window in [(5, 5, 0), (5, 5, 2), (4, 9, 0), (4, 9, 7), (4, 9, 3), (3, 3, 8)]:
        found = causal_pairs(np.array([float(queries)]), np.array([float(keys)]), float(window))
        assert found[0] == brute(queries, keys, window)


def test_one_tile_per_unit_by_hand() -> None:
    # 100 heads of one tile of 128 on 100 units: one block each, 2 * 128^2 * 256 FLOP at 1e13/s
    seconds = prefill_one(prefill(seq_len=128, num_heads=100, num_kv_heads=100))
    block = 2 * 128 * 128 * 256 / 1e13
    # 100 heads * 128 tokens * 128 wide * (q, out, k, v) of 2 bytes at 4 TB/s take longer
    moved = 100 * 128 * 128 * 4 * 2 / 4e12
    assert seconds == pytest.approx(1e-6 + max(block, moved), rel=1e-6)
    # one head more needs a second wave of blocks
    longer = PLAIN | {"cache_excess": -1.0, "query_excess": -1.0}
    two = prefill_one(prefill(seq_len=128, num_heads=101, num_kv_heads=101), longer)
    assert two == pytest.approx(1e-6 + 2 * block, rel=1e-6)


def test_long_prefill_is_bound_by_compute() -> None:
    shape = prefill(batch_size=8, seq_len=16384)
    exact = 8 * 32 * (16384 * 16385 / 2) * 4 * 128 / 1e15
    assert prefill_bound_s(shape, CHIP, "bf16")[0] == pytest.approx(exact)
    assert prefill_one(shape) == pytest.approx(exact, rel=0.02)
    assert prefill_one(shape) > exact


def test_full_masks_cost_twice_a_causal_one_and_windows_less() -> None:
    causal = prefill_one(prefill(seq_len=8192))
    full = prefill_one(prefill(seq_len=8192) | columns(pairs=8192.0 * 8192))
    window = prefill_one(prefill(seq_len=8192, sliding_window=1024))
    assert full / causal == pytest.approx(2.0, rel=0.03)
    assert window / causal == pytest.approx(2 * 1024 / 8192, rel=0.15)
    assert window < causal


def test_tokens_already_cached_add_their_pairs() -> None:
    whole, first = prefill_one(prefill(seq_len=8192)), prefill_one(prefill(seq_len=4096))
    second = prefill_one(prefill(seq_len=4096, past_kv_tokens=4096))
    assert first + second == pytest.approx(whole, rel=0.06)
    assert second > 2.5 * first


def test_pairs_reproduce_a_window() -> None:
    shape = prefill(seq_len=4096, sliding_window=512)
    pairs = causal_pairs(shape["seq_len"], shape["seq_len"], 512.0)
    given_pairs = prefill(seq_len=4096) | {"pairs": pairs}
    assert prefill_one(given_pairs) == pytest.approx(prefill_one(shape))


def test_an_operator_of_our_own_asks_for_its_flop() -> None:
    core = AttentionCore(
        sequences=2,
        name="attention", module="core_attn", input_from="qkv", queries=8192, keys=8192,
        own_keys=8192, pairs=2 * 4096 * 4097 / 2, heads=16, kv_heads=4, qk_dim=192, v_dim=128,
        dtype="bf16",
    )  # fmt: skip
    work = prefill_work(core_samples(core, 2), CHIP, "bf16")
    assert flop(work)[0] == pytest.approx(operator_flop(core))
    cut = tiles(work)
    assert cut.own_items[0] == 2 * 16 * 32
    assert cut.mean_blocks[0] == pytest.approx(16.5, rel=1e-3)  # of 1 to 32
    assert cut.longest_blocks[0] == 32


def test_cross_attention_with_few_keys_is_finite() -> None:
    shape = prefill(seq_len=4096) | columns(keys=77.0, pairs=77.0 * 4096)
    assert 1e-6 < prefill_one(shape, prefill_start(CHIP, "bf16")) < 1e-3


def test_memory_bound_decode_is_the_cache_at_bandwidth() -> None:
    cache = 64 * 8192 * 8 * 128 * 2 * 2
    queries = 64 * 32 * 128 * 2 * 2
    assert decode_one(decode()) == pytest.approx(1e-6 + (cache + queries) / 4e12, rel=1e-3)
    halved = decode() | columns(kv_element_bytes=1.0)
    assert decode_one(halved) == pytest.approx(1e-6 + (cache / 2 + queries) / 4e12, rel=1e-3)


def test_a_window_limits_what_decode_reads() -> None:
    assert decode_one(decode(sliding_window=1024)) == decode_one(decode(kv_tokens=1024))


def test_many_heads_per_key_make_decode_a_matter_of_compute() -> None:
    shape = decode(num_heads=1024, num_kv_heads=1, batch_size=100)
    compute = 100 * 8192 * 1024 * 4 * 128 / 1e15
    assert decode_one(shape) == pytest.approx(1e-6 + compute, rel=1e-3)


def test_a_token_is_written_by_a_block_of_512_threads_at_most() -> None:
    # 100 units, 8192 tokens, blocks of 1 us at 512 threads: 2 key heads of 128 make half a block
    shape = prefill(batch_size=64, seq_len=128, num_heads=32, num_kv_heads=2)
    without, written = PLAIN, PLAIN | {"write_s": 1e-6}
    assert prefill_one(shape, written) - prefill_one(shape, without) == pytest.approx(40.96e-6)
    wide = shape | columns(num_kv_heads=16)
    assert prefill_one(wide, written) - prefill_one(wide, without) == pytest.approx(81.92e-6)


def test_kernels_of_heads_that_share_no_keys_may_leave_units_idle() -> None:
    # one unit draws all of its share: 4 heads on 100 units take 25 times as long undivided
    only = {"unit_slowness": 1.0, "split_keys": 1.0, "query_excess": -1.0, "cache_excess": -1.0}
    slow = PLAIN_DECODE | only
    shape = decode(batch_size=1, num_heads=4, num_kv_heads=4)
    cache = 4 * 8192 * 128 * 2 * 2
    assert decode_one(shape, slow) == pytest.approx(1e-6 + cache / 4e12, rel=1e-6)
    whole = slow | {"ungrouped_split_odds": 1e-12}
    assert decode_one(shape, whole) == pytest.approx(1e-6 + 25 * cache / 4e12, rel=1e-6)
    # half the exponent: 5 of 25 parts
    some = slow | {"ungrouped_split_odds": 1.0}
    assert decode_one(shape, some) == pytest.approx(1e-6 + 5 * cache / 4e12, rel=1e-6)
    grouped = shape | columns(num_heads=8)
    assert decode_one(grouped, whole) == decode_one(grouped, slow)


def test_the_backward_pass_has_five_products_for_two_at_its_own_rate() -> None:
    forward = np.array([101e-6])
    expected = 1e-6 + 100e-6 * 2.5 / (0.63 / 0.73)
    assert backward_s(forward, 1e-6, 128, 128, FLASH_ATTENTION_2)[0] == pytest.approx(expected)
    assert 0.7 < FLASH_ATTENTION_3.share < FLASH_ATTENTION_2.share < 1.0


SIZES = {
    "batch_size": st.integers(1, 2048), "seq_len": st.integers(1, 131072),
    "kv_tokens": st.integers(1, 1048576), "group": st.integers(1, 128),
    "num_kv_heads": st.integers(1, 128), "head_dim": st.sampled_from([64, 128, 192, 256, 512]),
    "sliding_window": st.sampled_from([0, 1, 128, 8192]), "past_kv_tokens": st.integers(0, 131072),
}  # fmt: skip
Physics = Callable[[Samples, Chip, str, Parameters], Array]
KINDS: tuple[tuple[Physics, Callable[[Samples, Chip, str], Array], dict[str, float]], ...] = (
    (prefill_s, prefill_bound_s, prefill_start(CHIP, "bf16")),
    (decode_s, decode_bound_s, decode_start(CHIP, "bf16")),
)


def shaped(sizes: dict[str, int]) -> dict[str, Array]:
    heads = sizes["group"] * sizes["num_kv_heads"]
    rest = {name: value for name, value in sizes.items() if name != "group"}
    return columns(num_heads=heads, **rest)


@settings(max_examples=100, deadline=None)
@given(sizes=st.fixed_dictionaries(SIZES))
def test_times_are_finite_and_never_beat_the_bound(sizes: dict[str, int]) -> None:
    samples = shaped(sizes)
    for physics, bound_s, parameters in KINDS:
        for dtype in ("bf16", "fp8"):
            seconds = physics(samples, CHIP, dtype, parameters)
            assert np.all(np.isfinite(seconds))
            assert np.all(seconds > bound_s(samples, CHIP, dtype))


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.fixed_dictionaries(SIZES),
    grown=st.sampled_from(["batch_size", "seq_len", "kv_tokens", "num_kv_heads", "head_dim"]),
)
def test_twice_the_size_never_takes_less(sizes: dict[str, int], grown: str) -> None:
    more = shaped(sizes | {grown: 2 * sizes[grown]})
    for physics, _, parameters in KINDS:
        before = physics(shaped(sizes), CHIP, "bf16", parameters)
        after = physics(more, CHIP, "bf16", parameters)
        assert np.all(after >= before * (1 - 1e-5))


def drawn(family: Family) -> dict[str, Array]:
    generator = np.random.Generator(np.random.Philox(key=1))

    def powers(low: int, high: int) -> Array:
        return np.exp2(generator.integers(low, high, 600)).astype(float)

    kv_heads = powers(0, 4)
    samples = {
        "batch_size": powers(0, 8), "num_kv_heads": kv_heads, "num_heads": kv_heads * powers(0, 4),
        "head_dim": powers(6, 9), "sliding_window": np.zeros(600),
    }  # fmt: skip
    return samples | (
        {"seq_len": powers(4, 14)} if family is PREFILL else {"kv_tokens": powers(7, 16)}
    )


@pytest.mark.parametrize("family", [PREFILL, DECODE], ids=lambda family: str(family.name))
def test_a_fit_finds_known_parameters(family: Family) -> None:
    samples = drawn(family)
    truth = family.start(CHIP, "bf16") | {"launch_s": 5e-6, "compute_excess": 0.6}
    seconds = family.physics(samples, CHIP, "bf16", truth)
    found = fit_parameters(family, samples, seconds, CHIP, "bf16")
    again = family.physics(samples, CHIP, "bf16", found)
    assert float(np.quantile(np.abs(again / seconds - 1), 0.9)) < 0.02
    assert found["launch_s"] == pytest.approx(5e-6, rel=0.05)


@pytest.mark.parametrize("family", [PREFILL, DECODE], ids=lambda family: str(family.name))
def test_coordinates_match_the_axes(family: Family) -> None:
    coordinates = family.coordinates(drawn(family))
    assert len(coordinates) == len(family.axes)
    assert all(np.all(np.isfinite(values)) for values in coordinates)


def test_keys_before_every_window_are_not_read() -> None:
    shape = prefill(seq_len=128, past_kv_tokens=100_000, sliding_window=1024)
    work = prefill_work(shape, CHIP, "bf16")
    row = work.row_bytes * 8
    assert cache_bytes(work)[0] == pytest.approx((1024 + 127) * row)
    assert cache_bytes(prefill_work(prefill(past_kv_tokens=900), CHIP, "bf16"))[0] == 2948 * row


def test_only_earlier_keys_and_what_the_cache_cannot_hold_come_from_memory() -> None:
    old = prefill_bound_s(prefill(seq_len=1, past_kv_tokens=10**6), CHIP, "bf16")[0]
    assert old == pytest.approx(10**6 * 8 * 2 * 128 * 2 / 4e12)
    # one token of each of 50,000 sequences: no FLOP to speak of, new keys beyond twice the cache
    new = prefill_bound_s(prefill(seq_len=1, batch_size=50_000), CHIP, "bf16")[0]
    moved = 50_000 * (2 * 32 + 2 * 8) * 128 * 2
    assert new == pytest.approx((moved - 2 * 5e7) / 4e12)


def test_earlier_tokens_never_make_a_prompt_faster() -> None:
    past = np.arange(0.0, 3000.0)
    same = {name: np.full_like(past, value[0]) for name, value in prefill(seq_len=700).items()}
    seconds = prefill_s({**same, "past_kv_tokens": past}, CHIP, "bf16", PLAIN)
    assert np.all(np.diff(seconds) >= 0)
