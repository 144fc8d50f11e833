"""Sampling by hand, on a device of 1 TB/s: passes over [rows, vocabulary]."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.cost.kernels import kernel_time, roofline_s
from moesim.cost.times import ASSUMED_UNCERTAINTY
from moesim.model.backward import backward
from moesim.model.layers import sampling_operators
from moesim.model.operators import Collective, flop, saved_bytes
from moesim.model.sampling import Sampling, SamplingMethod
from moesim.model.shapes import Shard
from tests.unit.cost.machines import IDEAL, ROUND

METHODS: tuple[SamplingMethod, ...] = get_args(SamplingMethod)


def sampling(method: SamplingMethod, dtype: str = "bf16", **changes: Any) -> Sampling:
    plain = Sampling(
        name="sampling", module="sampling", input_from="logits", rows=64, vocab=128_000,
        method=method, dtype=dtype,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("method", "dtype", "per_value", "per_row", "kernels"),
    [
        # one read of the logit, one place of 8 bytes written
        ("greedy", "bf16", 2, 8, 1),
        ("greedy", "fp32", 4, 8, 1),
        # scale 2 + 4, softmax 2 * 4 + 4, draw 4
        ("temperature", "bf16", 6 + 12 + 4, 8, 3),
        ("temperature", "fp32", 8 + 12 + 4, 8, 3),
        # scale 6, histogram 4, four times 12 + 12, top-k 4 + 4, softmax 12, sum 4 + 4, top-p 8 + 4,
        # draw 4; then the place is looked up: two of 8 bytes read and one written
        ("sort", "bf16", 6 + 4 + 96 + 8 + 12 + 8 + 12 + 4, 8 + 24, 12),
        # scale 6, softmax 12, two draws of 4
        ("rejection", "bf16", 6 + 12 + 8, 2 * 8, 4),
    ],
)
def test_bytes_and_launches_by_hand(
    method: SamplingMethod, dtype: str, per_value: int, per_row: int, kernels: int
) -> None:
    moved = 64 * 128_000 * per_value + 64 * per_row
    operator = sampling(method, dtype)
    assert roofline_s(operator, ROUND, IDEAL) == pytest.approx(moved / 1e12)
    launched = replace(IDEAL, kernel_launch_s=1e-3, memory_fraction=0.5)
    assert roofline_s(operator, ROUND, launched) == pytest.approx(moved / 0.5e12 + kernels * 1e-3)


def test_more_rounds_are_more_draws() -> None:
    once, thrice = (sampling("rejection", rounds=rounds) for rounds in (1, 3))
    draw = 2 * (64 * 128_000 * 4 + 64 * 8) / 1e12
    more = roofline_s(thrice, ROUND, IDEAL) - roofline_s(once, ROUND, IDEAL)
    assert more == pytest.approx(draw)


@given(
    st.sampled_from(METHODS),
    st.integers(1, 4096),
    st.integers(2, 300_000),
    st.sampled_from(["bf16", "fp32"]),
)
def test_laws(method: SamplingMethod, rows: int, vocab: int, dtype: str) -> None:
    """Never faster for more; never under one reading of the logits; greedy first, sorting last."""
    asked = sampling(method, dtype, rows=rows, vocab=vocab)
    seconds = roofline_s(asked, ROUND, IDEAL)
    read = rows * vocab * {"bf16": 2, "fp32": 4}[dtype] / 1e12
    assert seconds >= read
    assert roofline_s(replace(asked, rows=rows + 1), ROUND, IDEAL) > seconds
    assert roofline_s(replace(asked, vocab=vocab + 1), ROUND, IDEAL) > seconds
    ranked = [
        roofline_s(replace(asked, method=one, rounds=3), ROUND, IDEAL)
        for one in ("greedy", "temperature", "rejection", "sort")
    ]
    assert ranked == sorted(ranked)


def test_it_says_that_it_is_assumed() -> None:
    known = kernel_time(sampling("sort"), ROUND, IDEAL)
    assert (known.tag, known.uncertainty) == ("assumed", ASSUMED_UNCERTAINTY)


def test_ranks_gather_the_vocabulary_first() -> None:
    alone = sampling_operators(128_000, 64, Shard(), "greedy")
    assert [type(operator) for operator in alone] == [Sampling]
    gather, chosen = sampling_operators(128_000, 64, Shard(tp=8), "greedy")
    assert isinstance(gather, Collective)
    assert (gather.kind, gather.group) == ("all_gather", "tp")
    assert gather.payload_bytes == 64 * 128_000 * 2
    assert isinstance(chosen, Sampling)
    assert chosen.vocab == 128_000


def test_nothing_is_learned_from_it() -> None:
    operator = sampling("sort")
    assert backward(operator) == ()
    assert flop(operator) == saved_bytes(operator) == 0.0
