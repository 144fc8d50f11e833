"""What a source's own shares count, by hand."""

from dataclasses import replace

import pytest

from moesim.cost.kernels import roofline_s
from moesim.cost.stated import Stated, attention_fraction, factor, memory_fraction
from moesim.model.operators import AttentionCore, Gemm, GroupedGemm
from tests.unit.cost.machines import IDEAL, ROUND

CORE = AttentionCore(
    name="attention", module="core_attn", input_from="qkv", sequences=2, queries=8, keys=8,
    own_keys=8, pairs=20.0, heads=4, kv_heads=4, qk_dim=8, v_dim=8, dtype="bf16",
)  # fmt: skip
BACK = replace(CORE, qk_products=3, v_products=2)


def test_forward_and_backward_have_their_own_shares() -> None:
    stated = Stated(attention_backward_fraction=0.25)
    assert attention_fraction(CORE, 0.5, stated) == 0.5
    assert attention_fraction(BACK, 0.5, stated) == 0.25
    assert attention_fraction(BACK, 0.5, None) == 0.5


def test_shares_of_all_pairs() -> None:
    """Two sequences of four: 20 of 32 pairs are let through, so 0.4 of all is 0.25 of them."""
    stated = Stated(all_pairs=True)
    assert attention_fraction(CORE, 0.4, stated) == pytest.approx(0.25)


def test_permutations_have_a_share_of_their_own() -> None:
    stated = Stated(permute_fraction=0.25)
    assert memory_fraction("unpermute_grad", 0.5, stated) == 0.25
    assert memory_fraction("ffn_norm", 0.5, stated) == 0.5
    assert memory_fraction("permute", 0.5, Stated()) == 0.5


def test_factors_by_kind() -> None:
    stated = Stated(collectives=(("all_gather", 1.25),))
    assert factor("all_gather", stated) == 1.25
    assert factor("all_reduce", stated) == factor("all_gather", None) == 1.0


@pytest.mark.parametrize(
    "gradient",
    [
        Gemm(name="w", module="mlp", input_from="mlp", m=32, n=16, k=64, dtype="bf16",
             accumulates=True),
        GroupedGemm(name="w", module="moe", input_from="moe", rows=(32, 0, 32), n=16, k=16,
                    dtype="bf16", accumulates=True),
    ],
)  # fmt: skip
def test_sums_of_gradients_come_on_top_of_plain_products(gradient: Gemm | GroupedGemm) -> None:
    """512 weights at 6 bytes more each than a product that writes 2, at half of 1 TB/s."""
    software = replace(IDEAL, memory_fraction=0.5)
    plain = roofline_s(gradient, ROUND, software)
    stated = roofline_s(gradient, ROUND, replace(software, stated=Stated()))
    more_s = 512 * 6 / 0.5e12
    assert stated - plain == pytest.approx(more_s)
