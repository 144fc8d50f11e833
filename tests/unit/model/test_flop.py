"""Useful FLOP per token against published figures and against an independent closed form."""

import pytest

from moesim.model.flop import training_flop_per_token
from moesim.model.named import load_named, named_models
from tests.unit.model.published_cases import architecture_of, cases_with_flop
from tests.unit.model.reference_flop import gflop_per_token_causal


def test_published_cases_within_one_per_cent() -> None:
    cases = cases_with_flop()
    off = []
    for case in cases:
        length = case["parallel"]["seq"]
        ours = training_flop_per_token(architecture_of(case), length) / 1e9
        if abs(ours / case["derived"]["gflop_per_token_causal"] - 1) > 0.01:
            off.append((case["id"], ours))
    assert len(cases) >= 300
    assert len(off) <= 0.05 * len(cases), off


def test_mixtral_by_hand() -> None:
    # forward, per layer: q and o 2 * 2 * 4096 * 4096, k and v 2 * 2 * 4096 * 1024, router
    # 2 * 4096 * 8, two experts of 3 * 2 * 4096 * 14336, attention 2 products of 2 * 32 * 128 over
    # (4096 + 1) / 2 keys; then logits 2 * 4096 * 32000; backward is twice the forward
    layer = 4.0 * 4096 * 4096 + 4 * 4096 * 1024 + 2 * 4096 * 8 + 2 * 6 * 4096 * 14336
    layer += 2 * 2 * 4096 * (4096 + 1) / 2
    expected = 3 * (32 * layer + 2 * 4096 * 32000)
    assert training_flop_per_token(load_named("mixtral-8x7b"), 4096) == pytest.approx(expected)


@pytest.mark.parametrize("name", named_models())
def test_catalogue_equals_an_independent_count(name: str) -> None:
    architecture = load_named(name)
    expected = 1e9 * gflop_per_token_causal(architecture, 4096)
    assert training_flop_per_token(architecture, 4096) == pytest.approx(expected, rel=0.01)
