"""Peak memory of a trial: weights, gradients, optimizer states, and what autograd keeps."""

from moesim.calibrate.device import Target
from moesim.calibrate.verify.plan import Small, Trial
from moesim.calibrate.verify.predict import dropped_share, own_params, shared_params
from moesim.model.operators import DTYPE_BYTES


def peak_bytes(trial: Trial, target: Target) -> float:
    """Return the predicted peak of one rank; in training at the start of the backward pass."""
    small, size = trial.model, DTYPE_BYTES[trial.dtype]
    params = shared_params(small) + own_params(small, target.processes)
    if trial.phase == "train":
        return params * size * 4 + kept_bytes(trial, fused_norm=target.kind == "cuda")
    caches = 2 * small.layers * small.kv_heads * small.head_dim * trial.sequences * trial.length
    work = trial.tokens * (small.hidden * 4 + small.width * 3)
    return (params + caches * (trial.phase == "decode") + work) * size


def kept_bytes(trial: Trial, *, fused_norm: bool) -> float:
    """Return the bytes that eager torch keeps of a forward pass.

    Per token and layer: each norm its input and, where it is unfused, the normalised values too;
    the normed input of the projections; queries, keys and values as rotated, the halves that the
    rotation multiplied, and the attention's output; in the feed-forward network the up projection,
    the activated gate and the product.
    """
    small, size = trial.model, DTYPE_BYTES[trial.dtype]
    norm = 2 if fused_norm else 3
    heads = small.heads + 2 * small.kv_heads
    attention = (heads + small.heads) * small.head_dim
    layer = trial.tokens * (2 * norm * small.hidden + attention) + _ffn_elements(trial, small)
    ends = trial.tokens * norm * small.hidden
    return size * (small.layers * layer + ends) + 4.0 * trial.tokens * small.vocab


def _ffn_elements(trial: Trial, small: Small) -> float:
    if not small.num_experts:
        return trial.tokens * 4.0 * small.width
    kept = trial.tokens * small.top_k * (1 - dropped_share(trial))
    return kept * (4.0 * small.width + 2.0 * small.hidden)
