"""What multi-head latent attention does between its up projections and its kernel.

The position is turned into a part of every query in place, and keys and values are written apart:
the key of a head is its own part and the turned part that all heads share. One pass each:

  elements read     T h (r + n + v) + T r        written     T h (r + n + r + v)

with T tokens, h heads, n and r dimensions of a query without and with position, v of a value.
Source: Megatron-LM core/fusions/fused_mla_yarn_rope_apply.py (`fused_apply_mla_rope_for_q` works in
place, `fused_apply_mla_rope_for_kv` writes keys and values). Without that fusion the same is done
by concatenations that move more: this is the least.
"""

from moesim.model.architecture import LatentAttention
from moesim.model.operators import Pointwise


def latent_rope(attention: LatentAttention, tokens: int, heads: int, dtype: str) -> Pointwise:
    """Return the pass over the queries, keys and values of `heads`; nothing of it is kept twice."""
    turned, plain = attention.qk_rope_head_dim, attention.qk_nope_head_dim
    value = attention.v_head_dim
    per_head = float(tokens * heads)
    return Pointwise(
        name="latent_rope", module="mla_up_proj", input_from="mla_up_proj", rows=float(tokens),
        elements_read=per_head * (turned + plain + value) + tokens * turned,
        elements_written=per_head * (turned + plain + turned + value),
        elements_saved=0.0, dtype=dtype,
    )  # fmt: skip
