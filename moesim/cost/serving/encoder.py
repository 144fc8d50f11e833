"""Iterations of an encoder-decoder model: prompts through the encoder, outputs through the decoder.

An iteration that takes prompts of S_1 .. S_c tokens while n sequences decode passes

    P = S_1 + .. + S_c tokens through all encoder layers, each prompt attending to the whole of
      itself (S^2 pairs, not the triangle), and their output through the keys and values of
      cross-attention of each decoder layer;
    n + c tokens through the decoder: each new sequence begins with one start token, and leaves
      with its first output token.

A decode step of a decoder layer runs attention twice: over the sequence's own tokens, and over the
keys and values of its prompt, which stay in the cache as they are. So a sequence of S prompt tokens
and t own ones reads S + t cached tokens in a layer, in two kernels; with as many heads as wide in
both, they are priced as one kernel over S + t - 1 and one over 1 token, which is the sum of both
where a kernel's time is a straight line of its tokens. The own tokens are those put out but for the
last, and the start token: S + t - 1 is what the engine counts as the cache of the step.

Attention with queries from the decoder and keys and values from the encoder: Vaswani et al., arXiv
1706.03762, section 3.2.3. Keys and values projected once, when the prompt has passed the encoder:
TensorRT-LLM, cross KV cache of encoder-decoder models (from memory, unchecked).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moesim.cost.curves import Array, predict_s
from moesim.cost.families import attention as curves
from moesim.cost.iteration import PS_PER_S, Chunk, Lines, TabledTimes, step_ps
from moesim.cost.serving.attention import heads_of
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.launches import host_s
from moesim.cost.serving.layer import head_s, memory_projection_s
from moesim.cost.serving.table import HostTime, alike, iteration_times, on_grid, pass_s
from moesim.model.architecture import GroupedQueryAttention

_WIDE = 2.0
"""Bytes of keys and values that no cache holds: bf16."""


@dataclass(slots=True)
class EncoderTimes:
    """Iteration times with an encoder before the decoder; decode steps are the decoder's own."""

    decoder: TabledTimes
    around_s: Callable[[int], float]
    """Attention of a whole prompt of so many tokens, all encoder layers."""
    rest_s: Callable[[int, int], float]
    """Everything but attention of an iteration with so many prompt tokens and sequences that get a
    token."""
    attended: dict[int, int] = field(default_factory=dict)
    passed: dict[tuple[int, int], int] = field(default_factory=dict)

    def lines(self, sequences: int) -> Lines:
        """Return the decode step of so many sequences."""
        return self.decoder.lines(sequences)

    def attention(self, sequences: int) -> Lines:
        """Return the attention alone of a decode step of so many sequences."""
        return self.decoder.attention(sequences)

    def common_ps(self, tokens: int, sequences: int, everyone: int | None = None) -> int:
        """Return everything but attention of a decode step, or of prompts that nobody decodes with.

        A decode step has as many tokens as sequences; `mixed_ps` knows of both together.
        """
        if tokens == sequences:
            return self.decoder.common_ps(tokens, sequences, everyone)
        return self._rest(tokens, sequences)

    def chunks_ps(self, chunks: Sequence[Chunk]) -> int:
        """Return the attention of whole prompts: in the encoder, and of the decoder's start tokens.

        These look back on the prompts.
        """
        tokens = sum(size for size, _ in chunks)
        begun = step_ps(self.decoder.attention(len(chunks)), tokens) if chunks else 0
        return self._around(chunks) + begun

    def mixed_ps(self, sequences: int, cached: int, chunks: Sequence[Chunk]) -> int:
        """Return an iteration that encodes prompts, and decodes so many sequences beside them."""
        tokens, together = sum(size for size, _ in chunks), sequences + len(chunks)
        if not tokens:
            return step_ps(self.lines(together), cached)
        decoded = step_ps(self.decoder.attention(together), cached + tokens)
        device = self._around(chunks) + decoded + self._rest(tokens, together)
        return max(device, self.least_ps(together))

    def least_ps(self, sequences: int) -> int:
        """Return what an iteration takes at least."""
        return self.decoder.least_ps(sequences)

    def _rest(self, tokens: int, sequences: int) -> int:
        key = (tokens, sequences)
        if key not in self.passed:
            self.passed[key] = round(self.rest_s(*key) * PS_PER_S)
        return self.passed[key]

    def _around(self, chunks: Sequence[Chunk]) -> int:
        total = 0
        for tokens, past in chunks:
            if past:
                raise ValueError("an encoder takes a prompt whole")
            if tokens not in self.attended:
                self.attended[tokens] = round(self.around_s(tokens) * PS_PER_S)
            total += self.attended[tokens]
        return total


def encoder_times(on: Deployment, host: HostTime) -> EncoderTimes:
    """Return what iterations of a model with an encoder take."""
    whole = on.architecture
    encoder, decoder = alike(replace(whole, decoder=whole.encoder)), alike(whole)
    encoded, decoded = pass_s(encoder, on), pass_s(decoder, on)

    def projected_s(tokens: Array) -> Array:
        parts = [count * memory_projection_s(layer, tokens, on) for layer, count in decoder]
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)

    projections = on_grid(projected_s)
    launches_s = host_s([*encoder, *decoder], on)
    waits = HostTime() if on.hidden_host else host

    def around_s(tokens: int) -> float:
        one = np.array([float(tokens)])
        kinds = [(layer.attention, count) for layer, count in encoder]
        return sum(
            count * float(around(kind, one, on)[0])
            for kind, count in kinds
            if isinstance(kind, GroupedQueryAttention)
        )

    def rest_s(tokens: int, sequences: int) -> float:
        drawn = float(head_s(np.array([float(sequences)]), on)[0])
        device = encoded(tokens) + projections(tokens) + decoded(sequences) + drawn
        return max(device, launches_s) + waits.needs_s(sequences)

    return EncoderTimes(iteration_times(on, host), around_s, rest_s)


def around(attention: GroupedQueryAttention, tokens: Array, on: Deployment) -> Array:
    """Return the attention of one prompt whose tokens all see each other.

    4 S^2 heads head_dim FLOP for each of the lengths S, by the curve of prompts of this device.
    """
    heads, kv_heads = heads_of(attention, on)
    pairs = tokens * tokens
    found = on.kernels.kind("bf16", "attention_prefill", "")
    if found is None:
        rate = on.chip.peak_flop_per_s["bf16"] * on.software.attention_fraction
        return 4.0 * pairs * heads * attention.head_dim / rate + on.software.kernel_launch_s
    columns = {
        "batch_size": 1.0, "past_kv_tokens": 0.0, "num_heads": heads, "num_kv_heads": kv_heads,
        "head_dim": attention.head_dim, "kv_element_bytes": _WIDE,
    }  # fmt: skip
    samples = {name: np.full_like(tokens, value) for name, value in columns.items()}
    samples |= {"seq_len": tokens, "pairs": pairs}
    return predict_s(curves.PREFILL, found.curve, samples, on.chip)
