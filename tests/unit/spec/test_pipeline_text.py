"""Megatron-LM's notation for pipeline chunks, read by hand."""

import pytest

from moesim.spec.pipeline_text import pipeline_chunks


def test_deepseek_v3_on_32_chunks() -> None:
    # E with one layer, thirty chunks of two, then MTP module and logits: 61 layers
    found = pipeline_chunks("Et|(tt|)*30mL")
    assert found == ("Et", *["tt"] * 30, "mL")
    assert sum(chunk.count("t") for chunk in found) == 61


def test_repeated_letters_and_groups_within_groups() -> None:
    assert pipeline_chunks("Et*3|t*2, mL") == ("Ettt", "ttmL")
    assert pipeline_chunks("E|((t|)*2tt|)*2L") == ("E", "t", "t", "tt", "t", "t", "tt", "L")


def test_a_chunk_may_be_empty() -> None:
    assert pipeline_chunks("Et||tL") == ("Et", "", "tL")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tt|L", "begin with E"),
        ("Et|tt", "end with L"),
        ("Et|m|L", "same chunk"),
        ("Ex|L", "'x' has no meaning"),
        ("E(t|L", "has no meaning"),
        ("E(t|)*99999L", "at most 10,000"),
    ],
)
def test_what_is_no_layout_says_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="".join(["\\(" if c == "(" else c for c in says])):
        pipeline_chunks(text)
