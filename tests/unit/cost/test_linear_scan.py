"""Linear attention by hand: chunks, states and gradients on 1 PFLOP/s and 1 TB/s."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.cost.kernels import kernel_time, roofline_s
from moesim.cost.times import ASSUMED_UNCERTAINTY
from moesim.model.backward import backward
from moesim.model.linear_scan import scan_phases
from moesim.model.operators import LinearAttentionCore, flop
from tests.unit.cost.machines import IDEAL, ROUND


def core(**changes: Any) -> LinearAttentionCore:
    plain = LinearAttentionCore(
        name="linear_attention", module="core_attn", input_from="qkv", sequences=1, tokens=64,
        heads=1, key_dim=128, value_dim=256, dtype="bf16",
    )  # fmt: skip
    return replace(plain, **changes)


def test_one_chunk_of_the_gated_delta_rule_by_hand() -> None:
    """64 tokens, keys of 128, values of 256: each product counted as rows x inner x columns x 2."""
    solve, state, output = scan_phases(core())
    kk, inverse = 2 * 64 * 128 * 64, 64**3 / 3
    w, u = 2 * 64 * 64 * 128, 2 * 64 * 64 * 256
    assert solve.flop == pytest.approx(kk + inverse + w + u)
    assert state.flop == pytest.approx(2 * (2 * 64 * 128 * 256))
    assert output.flop == pytest.approx(2 * 64 * 128 * 256 + 2 * 64 * 128 * 64 + 2 * 64 * 64 * 256)
    # two bytes: key and value in, W and U out; these and the key in, the corrected value out
    key, value, kept = 2 * 64 * 128, 2 * 64 * 256, 2 * 128 * 256
    assert (solve.read_bytes, solve.written_bytes) == (key + value, key + value)
    assert (state.read_bytes, state.written_bytes) == (2 * key + value, value + kept)
    assert (output.read_bytes, output.written_bytes) == (2 * key + value + kept, value)


def test_a_decay_needs_no_correction() -> None:
    state, output = scan_phases(core(products=2))
    assert state.flop == pytest.approx(2 * 64 * 128 * 256)
    assert state.written_bytes == 2 * 128 * 256
    assert output.flop == pytest.approx(2 * 64 * (128 * 256 + 64 * 128 + 64 * 256))


def test_phases_follow_each_other() -> None:
    """Qwen3-Next, one sequence of 4096: 32 value heads of 128; in Gbyte: 0.067, 0.134, 0.134."""
    operator = core(tokens=4096, heads=32, value_dim=128)
    unit = 4096 * 32 * 128 * 2  # bytes of one of query, key, value
    kept = 4096 / 64 * 32 * 128 * 128 * 2
    moved = [4 * unit, 4 * unit + kept, 4 * unit + kept]
    per_token = [2 * 64 * 3 * 128 + 64 * 64 / 3, 4 * 128 * 128, 2 * 128 * 128 + 2 * 64 * 2 * 128]
    work = [one * 4096 * 32 for one in per_token]
    expected = sum(max(f / 1e15, b / 1e12) for f, b in zip(work, moved, strict=True))
    assert roofline_s(operator, ROUND, IDEAL) == pytest.approx(expected)
    slow = replace(IDEAL, kernel_launch_s=1e-3)
    assert roofline_s(operator, ROUND, slow) == pytest.approx(expected + 3e-3)
    known = kernel_time(operator, ROUND, IDEAL)
    assert (known.tag, known.uncertainty) == ("assumed", ASSUMED_UNCERTAINTY)


def test_a_token_of_each_sequence_updates_its_state() -> None:
    """Decoding 100 sequences: 32 states of 128 x 128 fp32 in and out, and four vectors of 128."""
    operator = core(sequences=100, tokens=100, heads=32, value_dim=128)
    (step,) = scan_phases(operator)
    states = 100 * 32 * 128 * 128 * 4
    assert step.flop == flop(operator) == 2 * 3 * 100 * 32 * 128 * 128
    assert step.moved_bytes == 2 * states + 100 * 32 * 4 * 128 * 2
    assert roofline_s(operator, ROUND, IDEAL) == pytest.approx(step.moved_bytes / 1e12)


def test_the_backward_pass_by_hand() -> None:
    """Each product twice, the inverse as two of 64^3, and all but the output once more before."""
    (grad,) = backward(core())
    assert isinstance(grad, LinearAttentionCore)
    assert flop(grad) == 2 * flop(core())
    phases = {phase.name: phase for phase in scan_phases(grad)}
    assert list(phases) == ["solve", "state", "output_grad", "state_grad", "solve_grad"]
    solve, state, output = scan_phases(core())
    assert phases["solve"] == solve
    assert phases["state_grad"].flop == 2 * state.flop
    assert phases["output_grad"].flop == 2 * output.flop
    products = 2 * 64 * 64 * (2 * 128 + 256)
    assert phases["solve_grad"].flop == pytest.approx(2 * products + 4 * 64**3)
    assert phases["state_grad"].read_bytes == state.moved_bytes
    assert phases["state_grad"].written_bytes == state.read_bytes


_SIZES = st.sampled_from([16, 64, 128, 256])


@given(
    st.integers(1, 64), st.integers(1, 9000), st.integers(1, 64), _SIZES, _SIZES, st.integers(2, 3)
)
def test_laws(sequences: int, length: int, heads: int, d: int, v: int, products: int) -> None:
    """Kernels compute at least the useful FLOP and move at least the inputs and the output."""
    asked = core(
        sequences=sequences, tokens=sequences * length, heads=heads, key_dim=d, value_dim=v,
        products=products,
    )  # fmt: skip
    for operator in (asked, *backward(asked)):
        assert isinstance(operator, LinearAttentionCore)
        phases = scan_phases(operator)
        assert sum(phase.flop for phase in phases) >= flop(operator) * (1 - 1e-12)
        through = asked.tokens * heads * (2 * d + 2 * v) * 2
        assert sum(phase.moved_bytes for phase in phases) >= through
    more = replace(asked, tokens=sequences * (length + 1))
    if length > 1:
        assert roofline_s(more, ROUND, IDEAL) > roofline_s(asked, ROUND, IDEAL)
