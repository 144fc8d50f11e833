"""Attention whose scores go through memory: bytes and FLOP by hand, and where it keeps more."""

from dataclasses import replace

import pytest

from moesim.cost.unfused import unfused_s
from moesim.model.operators import AttentionCore, state_bytes
from tests.unit.cost.machines import IDEAL, ROUND

SOFTWARE = replace(IDEAL, gemm_fraction=0.5, memory_fraction=0.8, kernel_launch_s=1e-6)

CORE = AttentionCore(
    name="attention", module="core_attn", input_from="qkv", sequences=2, queries=2 * 1024,
    keys=2 * 1024, own_keys=2 * 1024, pairs=2 * 1024 * 1025 / 2, heads=4, kv_heads=4, qk_dim=64,
    v_dim=64, dtype="bf16", fused=False,
)  # fmt: skip
PAIRS = 2 * 1024 * 1024 * 4.0
"""Masked ones too: 2 sequences, 4 heads."""


def test_memory_bound_passes_by_hand() -> None:
    """With endless FLOP: 2 + 4 + 5 + 2 bytes a pair forward; 2 + 2 + 5 + 6 + 2 + 2 backward."""
    fast = replace(ROUND, peak_flop_per_s=(("bf16", 1e30),))
    bandwidth = 0.8 * 1e12
    launch_s = 1e-6
    forward = unfused_s(CORE, fast, SOFTWARE)
    assert forward == pytest.approx(13 * PAIRS / bandwidth + 4 * launch_s)
    back = replace(CORE, qk_products=3, v_products=2)
    assert unfused_s(back, fast, SOFTWARE) == pytest.approx(19 * PAIRS / bandwidth + 6 * launch_s)


def test_products_compute_masked_pairs_too() -> None:
    """With endless bandwidth: 4 FLOP per pair and width forward, 8 backward."""
    wide = replace(ROUND, memory_bandwidth_bytes_per_s=1e30)
    rate, launch_s = 0.5 * 1e15, 1e-6
    assert unfused_s(CORE, wide, SOFTWARE) == pytest.approx(4 * 64 * PAIRS / rate + 4 * launch_s)
    back = replace(CORE, qk_products=3, v_products=2)
    assert unfused_s(back, wide, SOFTWARE) == pytest.approx(8 * 64 * PAIRS / rate + 6 * launch_s)


def test_five_bytes_of_every_pair_are_kept() -> None:
    """5 a s^2 b (Korthikanti et al. 2022, section 4.1), where fused attention keeps a row of it."""
    assert state_bytes(CORE) == 5 * PAIRS
    assert state_bytes(replace(CORE, fused=True)) == 2 * 1024 * 4 * 4


def test_fp32_scores_by_hand() -> None:
    """Mesh TensorFlow's graph, kernel by kernel, with endless FLOP.

    Forward: 4 written; 4, 4 and 4 read; 4 + 2 written; 2 read: 24 bytes a pair. Backward: 2 read;
    2 written; 2 + 4 read; 2 + 4 + 4 read and 4 written; 4 and 4 read for queries and keys: 32.
    """
    fast = replace(ROUND, peak_flop_per_s=(("bf16", 1e30),))
    bandwidth, launch_s = 0.8 * 1e12, 1e-6
    wide = replace(CORE, wide_scores=True)
    assert unfused_s(wide, fast, SOFTWARE) == pytest.approx(24 * PAIRS / bandwidth + 5 * launch_s)
    back = replace(wide, qk_products=3, v_products=2)
    assert unfused_s(back, fast, SOFTWARE) == pytest.approx(32 * PAIRS / bandwidth + 6 * launch_s)
    assert state_bytes(wide) == 10 * PAIRS
