"""Bytes per logit of the loss, counted by hand from Megatron-LM's two files and PyTorch."""

import pytest

from moesim.model.backward import backward
from moesim.model.cross_entropy import CrossEntropy, loss_operators
from moesim.model.operators import Collective, Pointwise, read_bytes, saved_bytes, written_bytes

ROWS, VOCAB = 8, 1000


def kernels(kind: CrossEntropy, dtype: str = "bf16") -> list[Pointwise]:
    found = loss_operators(kind, ROWS, VOCAB, dtype=dtype, tp=1)
    return [one for one in found if isinstance(one, Pointwise)]


def per_logit(found: list[Pointwise]) -> float:
    return sum(read_bytes(one) + written_bytes(one) for one in found) / (ROWS * VOCAB)


@pytest.mark.parametrize(
    ("kind", "forward", "back", "kept"),
    [
        ("fused", 2, 2 + 2, 2),
        ("native", (2 + 4) + (4 + 4) + (4 + 4), 4 + 2, 4),
        ("unfused", (2 + 4) + 4 + (4 + 4) + (4 + 4) + 4 + (4 + 4), (4 + 4) + (4 + 2), 4),
        # shift, cast, log-softmax; back: zeros, softmax, cast, zeros and copy
        ("torch", (2 + 2) + (2 + 4) + (4 + 4), 4 + (8 + 4) + (4 + 2) + (2 + 2 + 2), 4),
    ],
)
def test_bytes_per_logit_by_hand(
    kind: CrossEntropy, forward: float, back: float, kept: float
) -> None:
    found = kernels(kind)
    grads = [g for one in found for g in backward(one) if isinstance(g, Pointwise)]
    assert per_logit(found) == forward
    assert per_logit(grads) == back
    assert sum(saved_bytes(one) for one in found) / (ROWS * VOCAB) == kept


def test_fp32_logits_need_no_cast() -> None:
    """Forward loses the cast's 6 bytes, backward its 6."""
    found = kernels("unfused", "fp32")
    grads = [g for one in found for g in backward(one) if isinstance(g, Pointwise)]
    assert (per_logit(found), per_logit(grads)) == (38 - 6, 14 - 6)


def test_three_small_all_reduces_forward_and_none_backward() -> None:
    found = loss_operators("fused", ROWS, VOCAB, dtype="bf16", tp=4)
    sums = [one for one in found if isinstance(one, Collective)]
    assert [(one.kind, one.payload_bytes) for one in sums] == [("all_reduce", 4.0 * ROWS)] * 3
    assert not [grad for one in sums for grad in backward(one)]
