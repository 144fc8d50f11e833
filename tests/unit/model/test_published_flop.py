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
    [  # as derived from published training runs of these models, printed to two decimals
        ("llama-3.1-405b", 8192, 2523.96),
        ("llama-3.1-8b", 8192, 51.47),
        ("deepseek-v3", 4096, 260.64),  # with its multi-token-prediction module
        ("deepseek-v2", 4096, 155.30),
        ("qwen3-30b-a3b", 4096, 23.08),
        ("mixtral-8x7b", 4096, 79.71),
        ("mixtral-8x22b", 4096, 242.18),
        ("olmoe-1b-7b", 4096, 7.88),
        ("gpt3-175b", 2048, 1061.95),
        ("mpt-7b", 2048, 41.50),
    ],
)
def test_known_models(name: str, seq: int, gflop: float) -> None:
    assert gflop_per_token_causal(load_named(name), seq) == pytest.approx(gflop, abs=0.0051)
