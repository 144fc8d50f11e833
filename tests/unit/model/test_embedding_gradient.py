"""Bytes of an embedding's gradient, counted by hand from PyTorch's and Megatron-LM's steps."""

import pytest

from moesim.model.backward import backward
from moesim.model.embedding_gradient import with_table_gradient
from moesim.model.layers import embedding_operators
from moesim.model.operators import Pointwise, read_bytes, written_bytes
from moesim.model.shapes import Shape, Shard

TOKENS, HIDDEN, WEIGHTS = 16, 8, 1000 * 8
ROWS = 2 * TOKENS * HIDDEN


def _moved(buffer_bytes: float | None, dtype: str = "bf16") -> tuple[float, float]:
    shape = Shape(sequences=2, length=TOKENS // 2)
    found = with_table_gradient(
        embedding_operators(HIDDEN, shape, Shard(dtype=dtype)), WEIGHTS, buffer_bytes
    )
    (grad,) = (one for op in found for one in backward(op))
    assert isinstance(grad, Pointwise)
    return read_bytes(grad), written_bytes(grad)


def test_a_summed_table_moves_twelve_bytes_per_weight() -> None:
    """Zeros 2 written; the sum 2 + 4 read and 4 written; and the rows that were looked up."""
    assert _moved(4.0) == (ROWS + 6 * WEIGHTS, ROWS + 6 * WEIGHTS)


@pytest.mark.parametrize(("buffer_bytes", "read", "written"), [(None, 0, 2), (2.0, 4, 4)])
def test_sums_of_other_widths(buffer_bytes: float | None, read: int, written: int) -> None:
    assert _moved(buffer_bytes) == (ROWS + read * WEIGHTS, ROWS + written * WEIGHTS)


def test_fp32_weights_move_sixteen() -> None:
    """Zeros 4 written; the sum 4 + 4 read and 4 written."""
    read, written = _moved(4.0, "fp32")
    assert read + written == 4 * ROWS + 16 * WEIGHTS
