"""Dispatch and combine priced: copies by dispatcher, narrow types, there and back."""

import pytest

from moesim.cost.layout import Layout
from moesim.cost.pricing import Machine, price, rows_sent
from moesim.model.architecture import MoeFfn
from moesim.model.backward import backward
from moesim.model.ffn import ffn_operators
from moesim.model.operators import Exchange
from moesim.model.shapes import Shape, Shard
from tests.unit.cost.machines import IDEAL, ROUND, net


def _machine(dispatcher: str, domains: int, members: int) -> Machine:
    layout = Layout(
        tp=1, pp=1, vpp=1, cp=1, ep=8, etp=1, dp=8, sequence_parallel=True, schedule="1f1b",
        dispatcher=dispatcher,
    )  # fmt: skip
    return Machine(
        device=ROUND, software=IDEAL, layout=layout, networks={"ep": net(domains, members)}
    )


def _exchange(copies: float) -> Exchange:
    return Exchange(
        name="dispatch", module="moe", tokens=1000, hidden=100, top_k=2, num_experts=8,
        copies=copies, dtype="bf16", backward_dtype="bf16",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("copies", "share"),
    [(2.0, 1.0), (1.0, 0.5), (3.0, 1.5)],  # all that is chosen, half of it dropped, padded by half
)
def test_copies_follow_what_is_kept_or_padded(copies: float, share: float) -> None:
    """Two domains of four ranks with an expert each: half of two choices leave, 3/8 stay near."""
    found = rows_sent(_exchange(copies), _machine("alltoall", 2, 4))
    assert found.scale_out == pytest.approx(1.0 * share)
    assert found.scale_up == pytest.approx(0.75 * share)


@pytest.mark.parametrize(("copies", "share"), [(2.0, 1.0), (1.0, 0.5), (3.0, 1.0)])
def test_deepep_sends_no_padding(copies: float, share: float) -> None:
    """A token reaches the other domain with 1 - C(4,2) / C(8,2) = 22/28, and 2 * 3/4 ranks near.

    Fewer where choices are dropped, never more: its buffers are as long as what is chosen.
    """
    found = rows_sent(_exchange(copies), _machine("deepep", 2, 4))
    assert found.scale_out == pytest.approx(22 / 28 * share)
    assert found.scale_up == pytest.approx(1.5 * share)


@pytest.mark.parametrize("copies", [1.0, 2.0, 3.0])
def test_a_gather_sends_every_token_whatever_is_kept(copies: float) -> None:
    # once to the other domain, and to three neighbours the tokens of both
    found = rows_sent(_exchange(copies), _machine("allgather", 2, 4))
    assert (found.scale_up, found.scale_out) == (6.0, 1.0)


@pytest.mark.parametrize(
    ("dtype", "dispatch_dtype", "there", "back"),
    [
        ("bf16", None, 2, 2),
        ("fp8", None, 2, 2),  # products in fp8, activations in bf16
        ("fp32", None, 4, 4),
        ("bf16", "fp8", 1 + 4 / 128, 2),  # one fp32 scale per 128 elements
        ("fp8", "fp8", 1 + 4 / 128, 2),
    ],
)
def test_a_narrow_type_is_for_what_enters_the_experts(
    dtype: str, dispatch_dtype: str | None, there: float, back: float
) -> None:
    """DeepSeek-V3 (arXiv 2412.19437, section 3.3.3): fp8 before up and down projection.

    That is dispatch forward, and the gradient of the combine, which enters the down projection's
    backward pass; both combines, forward and backward, stay bf16. 1000 tokens of 100 channels,
    two choices, 7/8 of them on other ranks, at 100 bytes/s: 1750 s per byte of an element.
    """
    ffn = MoeFfn(num_experts=8, top_k=2, expert_width=64)
    shard = Shard(ep=8, dtype=dtype, dispatch_dtype=dispatch_dtype)
    found = ffn_operators(ffn, 100, Shape(sequences=1, length=1000), shard, (2000,), None)
    dispatch, combine = (op for op in found if isinstance(op, Exchange))
    on = _machine("alltoall", 1, 8)
    (dispatch_grad,), (combine_grad,) = backward(dispatch), backward(combine)
    seconds = [price(op, on).seconds for op in (dispatch, combine, combine_grad, dispatch_grad)]
    assert seconds == pytest.approx([1750 * size for size in (there, back, there, back)])


def test_an_exchange_ends_with_the_fullest_rank() -> None:
    on = _machine("alltoall", 1, 8)
    assert price(_exchange(2.0), on, skew=1.5).seconds == pytest.approx(1.5 * 3500)
    # half of the choices dropped: half of the bytes, and the skew of what is left
    assert price(_exchange(1.0), on, skew=1.5).seconds == pytest.approx(1.5 * 1750)
