"""The pass between the projections and the kernel of latent attention, by hand."""

from moesim.model.architecture import LatentAttention
from moesim.model.backward import backward
from moesim.model.latent_rope import latent_rope
from moesim.model.operators import Pointwise, read_bytes, saved_bytes, written_bytes

DEEPSEEK = LatentAttention(
    heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
    v_head_dim=128,
)  # fmt: skip


def test_deepseek_moves_704_values_per_token_and_head() -> None:
    """64 of a query in place, 256 of keys and values in, keys of 192 and values of 128 out."""
    rope = latent_rope(DEEPSEEK, 10, 128, "bf16")
    assert read_bytes(rope) == 2 * 10 * (128 * (64 + 256) + 64)
    assert written_bytes(rope) == 2 * 10 * 128 * (64 + 192 + 128)
    assert saved_bytes(rope) == 0


def test_gradients_go_the_other_way() -> None:
    rope = latent_rope(DEEPSEEK, 10, 16, "bf16")
    (grad,) = backward(rope)
    assert isinstance(grad, Pointwise)
    assert (read_bytes(grad), written_bytes(grad)) == (written_bytes(rope), read_bytes(rope))
