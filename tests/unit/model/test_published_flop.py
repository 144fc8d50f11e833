"""The closed form reproduces the FLOP per token that were derived from published measurements."""

import pytest

from moesim.model.named import load_named
from tests.unit.model.published_cases import architecture_of, cases_with_flop
from tests.unit.model.reference_flop import gflop_per_token_causal


def test_every_published_case_to_the_printed_digit() -> None:
    wrong = []
    for case in cases_with_flop():
        expected = case["derived"]["gflop_per_token_causal"]
        found = gflop_per_token_causal(architecture_of(case), case["parallel"]["seq"])
        decimals = len(str(expected).partition(".")[2])
        if abs(found - expected) > 0.51 * 10**-decimals:
            wrong.append(f"{case['id']}: {found:.4f} instead of {expected}")
    assert not wrong


def test_there_are_as_many_cases_as_the_readme_says() -> None:
    assert len(cases_with_flop()) == 303


@pytest.mark.parametrize(
    ("name", "seq", "gflop"),
    [
        # derived.gflop_per_token_causal of the published cases of these models
        ("llama-3.1-405b", 8192, 2523.96),
        ("mixtral-8x7b", 4096, MIXTRAL := 0.0),
    ],
)
def test_known_models(name: str, seq: int, gflop: float) -> None:
    assert gflop_per_token_causal(load_named(name), seq) == pytest.approx(gflop, abs=0.006)
