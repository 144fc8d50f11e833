"""The backward pass of an operator, as operators again."""

from dataclasses import replace
from functools import lru_cache

from moesim.model.one_hot import MaskProduct, mask_backward
from moesim.model.operators import (
    AttentionCore,
    Collective,
    CollectiveKind,
    Compute,
    Exchange,
    Gemm,
    GroupedGemm,
    LinearAttentionCore,
    Operator,
    Pointwise,
)
from moesim.model.sampling import Sampling

_MIRROR: dict[CollectiveKind, CollectiveKind] = {
    "all_reduce": "all_reduce",
    "all_gather": "reduce_scatter",
    "reduce_scatter": "all_gather",
    "all_to_all": "all_to_all",
    "broadcast": "broadcast",  # gradients are summed on the way back: as many bytes
    "send": "send",
}


@lru_cache(maxsize=4096)
def backward(operator: Operator) -> tuple[Operator, ...]:
    """Return what the backward pass of `operator` does.

    A matrix product has two: the gradient of its input and the gradient of its weights. A
    collective has its mirror image; an exchange sends the gradients the other way. Where sequence
    parallelism gathers an input a second time, that hides behind the gradient of the input.
    """
    if isinstance(operator, Collective):
        if operator.forward_only:
            return ()
        mirrored = replace(operator, name=f"{operator.name}_grad", kind=_MIRROR[operator.kind])
        # a rank keeps its own keys and values only, so it gets the others once more
        again = operator.group == "cp" and operator.kind != "all_to_all"
        return (operator, mirrored) if again else (mirrored,)
    if isinstance(operator, Exchange):
        dtype = operator.backward_dtype
        return (replace(operator, name=f"{operator.name}_grad", dtype=dtype),)
    return _compute_backward(operator)


def _compute_backward(operator: Compute) -> tuple[Compute, ...]:
    match operator:
        case Gemm():
            return (
                replace(operator, name=f"{operator.name}_dgrad", n=operator.k, k=operator.n),
                replace(
                    operator,
                    name=f"{operator.name}_wgrad",
                    m=operator.k,
                    k=operator.m,
                    accumulates=True,
                ),
            )
        case GroupedGemm():
            grad = replace(operator, name=f"{operator.name}_dgrad", n=operator.k, k=operator.n)
            return (grad, replace(operator, name=f"{operator.name}_wgrad", accumulates=True))
        case AttentionCore():
            name = f"{operator.name}_grad"
            return (replace(operator, name=name, qk_products=3, v_products=2),)
        case LinearAttentionCore():
            return (replace(operator, name=f"{operator.name}_grad", backward=True),)
        case Sampling():
            return ()
        case MaskProduct():
            return mask_backward(operator)
        case Pointwise():
            return _pointwise_backward(operator)


def _pointwise_backward(operator: Pointwise) -> tuple[Pointwise, ...]:
    """Return the kernel that reads the incoming gradient beside what was saved, or its own."""
    read, written = operator.elements_saved + operator.elements_written, operator.elements_read
    if operator.gradient is not None:
        read, written = operator.gradient
    if not read + written and operator.gradient is not None:
        return ()
    return (
        replace(
            operator,
            name=f"{operator.name}_grad",
            elements_read=read,
            elements_written=written,
            launches=operator.launches[::-1],
        ),
    )
