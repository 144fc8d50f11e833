"""Linear attention while serving: a state per sequence instead of a cache that grows."""

from moesim.cost.kernels import roofline_s
from moesim.cost.serving.deployment import Deployment
from moesim.model.architecture import LinearAttention
from moesim.model.operators import LinearAttentionCore


def scan_s(attention: LinearAttention, sequences: int, tokens: int, on: Deployment) -> float:
    """Return the scan over `tokens` tokens of so many sequences; one each is a decode step."""
    core = LinearAttentionCore(
        name="linear_attention", module="core_attn", input_from="qkv", sequences=sequences,
        tokens=tokens, heads=max(1, attention.value_heads // on.cut.tp),
        key_dim=attention.key_head_dim, value_dim=attention.value_head_dim, dtype="bf16",
        products=3 if attention.rule == "gated_delta" else 2,
    )  # fmt: skip
    return roofline_s(core, on.device, on.software)
