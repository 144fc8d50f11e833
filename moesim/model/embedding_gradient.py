"""The gradient of the input embedding: a whole table, though few of its rows were looked up.

PyTorch fills a table of zeros and adds the rows to it; a trainer that sums micro-batches in a
buffer of its own then adds the whole table to that buffer, as the look-up is no matrix product that
could add to it in place. Bytes per weight, with weights of w and a buffer of g bytes:

  w written + (w + g read, g written where it is summed)    12 in all for bf16 and fp32

Sources: PyTorch aten/src/ATen/native/cuda/Embedding.cu (`embedding_dense_backward_cuda`: at::zeros)
Megatron-LM core/distributed/distributed_data_parallel.py (`param.main_grad.add_(param.grad.data)`
where `grad_added_to_main_grad` is not set; gradient accumulation fusion sets it in linear layers).
"""

from dataclasses import replace

from moesim.model.operators import DTYPE_BYTES, Operator, Pointwise


def with_table_gradient(
    operators: list[Operator], weights: float, buffer_bytes: float | None
) -> list[Operator]:
    """Return the operators of an embedding whose look-up has the gradient of a whole table.

    `weights` of the table are on this rank; `buffer_bytes` is the size of a summed gradient, None
    where micro-batches are not summed on the rank.
    """
    return [
        _lookup(one, weights, buffer_bytes) if isinstance(one, Pointwise) else one
        for one in operators
    ]


def _lookup(lookup: Pointwise, weights: float, buffer_bytes: float | None) -> Pointwise:
    """Elements are counted in the look-up's own type."""
    summed = 0.0 if buffer_bytes is None else buffer_bytes / DTYPE_BYTES[lookup.dtype]
    again = 0.0 if buffer_bytes is None else 1.0
    read = lookup.elements_written + (again + summed) * weights
    written = lookup.elements_read + (1.0 + summed) * weights
    return replace(lookup, gradient=(read, written))
