"""Systolic matrix units by hand: whole blocks of cells, streamed no faster than blocks load."""

from dataclasses import replace

import pytest

from moesim.cost.kernels import roofline_s
from moesim.cost.matrix_unit import unit_padding, volume
from moesim.cost.unfused import unfused_s
from moesim.hardware.profiles import load_accelerator
from moesim.model.backward import backward
from moesim.model.operators import AttentionCore, Gemm, GroupedGemm
from tests.unit.cost.machines import IDEAL, ROUND

UNIT = replace(ROUND, matrix_unit=128, memory_bandwidth_bytes_per_s=1e30)


def _gemm(m: int, n: int, k: int) -> Gemm:
    return Gemm(name="g", module="mlp", input_from="x", m=m, n=n, k=k, dtype="bf16")


def test_volumes_by_hand() -> None:
    assert volume(1000, 256, 128, 128) == 1000 * 256 * 128  # rows stream, no need of 128s
    assert volume(1000, 256, 64, 128) == 1000 * 256 * 128  # half of the cells idle along k
    assert volume(1000, 64, 128, 128) == 1000 * 128 * 128  # half of the columns idle
    assert volume(1, 256, 128, 128) == 128 * 256 * 128  # one row waits for each block
    assert volume(512, 128, 512, 256) == 2 * 512 * 128 * 512  # v6e: heads of 128 fill half


def test_products_take_as_long_as_whole_units() -> None:
    exact_s = 2 * 4096 * 256 * 128 / 1e15
    assert roofline_s(_gemm(4096, 256, 128), UNIT, IDEAL) == pytest.approx(exact_s)
    assert roofline_s(_gemm(4096, 256, 100), UNIT, IDEAL) == pytest.approx(exact_s)


def test_experts_each_fill_their_own() -> None:
    """Rows of 256 and 1: the single one streams as if it were 128; no rows cost nothing.

    The gradient of the weights has the rows inside: 256 + 128.
    """
    experts = GroupedGemm(
        name="g", module="moe", input_from="x", rows=(256, 1, 0), n=256, k=128, dtype="bf16"
    )
    assert unit_padding(experts, 128) == pytest.approx((256 + 128) / 257)
    weights = backward(experts)[1]
    assert isinstance(weights, GroupedGemm)
    assert unit_padding(weights, 128) == pytest.approx((256 + 128) / 257)
    assert unit_padding(replace(experts, rows=(0, 0)), 128) == 1.0


def _attention(**changes: object) -> AttentionCore:
    core = AttentionCore(
        sequences=1, name="a", module="core_attn", input_from="qkv", queries=512, keys=512,
        own_keys=512, pairs=512 * 512.0, heads=2, kv_heads=2, qk_dim=64, v_dim=64, dtype="bf16",
    )  # fmt: skip
    return replace(core, **changes)  # type: ignore[arg-type]


def test_narrow_heads_leave_cells_idle() -> None:
    whole_s = roofline_s(_attention(), replace(UNIT, matrix_unit=None), IDEAL)
    assert roofline_s(_attention(), UNIT, IDEAL) == pytest.approx(2 * whole_s)
    # wide keys and narrow values: (256 + 128) cells for 192 + 64
    assert unit_padding(_attention(qk_dim=192), 128) == pytest.approx(384 / 256)
    # products at 0.8 of the peak take 0.5 / 0.8 of the time; they alone take twice as long
    slow = replace(IDEAL, attention_fraction=0.5, gemm_fraction=0.8)
    slow_s = roofline_s(_attention(), UNIT, slow)
    assert slow_s == pytest.approx(whole_s / 0.5 * (1 + 0.5 / 0.8))
    loose = _attention(fused=False)
    half_s = unfused_s(loose, replace(UNIT, matrix_unit=None), IDEAL)
    assert unfused_s(loose, UNIT, IDEAL) == pytest.approx(2 * half_s)


def test_chips_state_their_units() -> None:
    sizes = {name: load_accelerator(f"tpu-{name}").matrix_unit for name in ("v3", "v5p", "v6e")}
    assert {name: one and one.value for name, one in sizes.items()} == {
        "v3": 128, "v5p": 128, "v6e": 256,
    }  # fmt: skip
