"""Iterations of encoder-decoder models: FLOP and bytes by hand, a small model kernel by kernel."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.cost.curves import Array
from moesim.cost.fitted import Kernels
from moesim.cost.iteration import step_ps
from moesim.cost.serving.attention import decode_s, prefill_s
from moesim.cost.serving.deployment import Cut, Deployment
from moesim.cost.serving.encoder import EncoderTimes, around, encoder_times
from moesim.cost.serving.products import gemm_s, passes_s
from moesim.cost.serving.table import HostTime
from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    GroupedQueryAttention,
    Layer,
    MoeFfn,
    Run,
)
from moesim.model.flop import forward_flop
from moesim.model.shapes import Shape
from tests.unit.cost.serving.deployments import deployment

S = 10**12
NEVER_S = 1e-30
"""Of what is to cost nothing: a rate of its inverse, a launch."""

HIDDEN, HEADS, WIDTH, FFN, VOCAB = 256, 4, 64, 512, 1000


def small(hidden: int = HIDDEN, heads: int = HEADS) -> Architecture:
    """Return a model with one layer in the encoder and one in the decoder."""
    own = GroupedQueryAttention(heads=heads, kv_heads=heads, head_dim=WIDTH)
    both = replace(own, causal=False)
    ffn = DenseFfn(width=2 * hidden, gated=False)
    return Architecture(
        name="small", source="made up", hidden=hidden, vocab=VOCAB,
        encoder=(Run(Layer(attention=both, ffn=ffn), 1),),
        decoder=(Run(Layer(attention=own, ffn=ffn, cross_attention=both, norms=3), 1),),
    )  # fmt: skip


def bare(peak: float, bandwidth: float) -> Deployment:
    """Return the small model on a device of these rates, without measured kernels or launches."""
    on = deployment("t5-base", Cut(), devices=1)
    chip = replace(on.chip, peak_flop_per_s={"bf16": peak}, memory_bandwidth_bytes_per_s=bandwidth)
    software = replace(
        on.software, gemm_fraction=1.0, grouped_gemm_fraction=1.0, attention_fraction=1.0,
        memory_fraction=1.0, kernel_launch_s=0.0, host_per_kernel_s=NEVER_S,
    )  # fmt: skip
    kernels = Kernels(chip, {})
    return replace(on, architecture=small(), chip=chip, software=software, kernels=kernels)


def _unlaunched(on: Deployment) -> Deployment:
    """Return a deployment whose host launches kernels in no time."""
    return replace(on, software=replace(on.software, host_per_kernel_s=NEVER_S))


def times(on: Deployment) -> EncoderTimes:
    return encoder_times(on, HostTime())


def test_flop_of_an_encoder_pass_by_hand() -> None:
    """Prompts of 96 and 160 tokens while 3 sequences decode; bytes cost nothing.

    Encoder, a token: 2 * 256 * (768 + 256) for attention's products, 2 * 2 * 256 * 512 for the
    network; a prompt: 4 S^2 * 256 for all pairs; keys and values for the decoder: 2 * 256 * 512.
    Decoder, a sequence: the same products, 2 * 2 * 256 * 256 around cross-attention, and the head.
    """
    peak = 1e12
    on = bare(peak, 1 / NEVER_S)
    took = times(on).mixed_ps(3, 300, [(96, 0), (160, 0)]) / S
    layer = 2 * 256 * (768 + 256) + 2 * 2 * 256 * 512
    encoder = 256 * (layer + 2 * 256 * 512) + 4 * (96**2 + 160**2) * 256
    decoder = (3 + 2) * (layer + 2 * 2 * 256 * 256 + 2 * 256 * 1000)
    assert took * peak == pytest.approx(encoder + decoder, rel=1e-6)


def test_flop_are_those_of_training_code() -> None:
    """The operators of a training step count the same, attention of the decoder's token apart."""
    peak, length = 1e12, 128
    took = times(bare(peak, 1 / NEVER_S)).mixed_ps(0, 0, [(length, 0)]) / S
    decoder = Shape(sequences=1, length=1, memory_length=length)
    whole = forward_flop(small(), decoder, Shape(sequences=1, length=length))
    own = 4 * (1 + length) * HIDDEN
    assert took * peak == pytest.approx(whole - own, rel=1e-6)


@pytest.mark.parametrize(("sequences", "source", "own"), [(1, 100, 29), (8, 512, 1), (32, 40, 89)])
def test_bytes_of_attention_in_a_decode_step(sequences: int, source: int, own: int) -> None:
    """Keys and values of 4 heads of 64 in bf16: 1,024 bytes a token, of prompt and output alike.

    A sequence that put out `own` tokens has as many in its cache: the start token, not the last.
    The step computes one more, and the engine counts prompt and outputs: source + own.
    """
    bandwidth = 1e12
    attention = times(bare(1 / NEVER_S, bandwidth)).attention(sequences)
    took = step_ps(attention, sequences * (source + own)) / S
    assert took * bandwidth == pytest.approx(sequences * (source + own + 1) * 1024, rel=1e-3)


def test_bytes_of_a_decode_step_by_hand() -> None:
    """Weights of the decoder alone, and not those of cross-attention's keys and values."""
    bandwidth, n = 1e12, 4
    on = bare(1 / NEVER_S, bandwidth)
    took = times(on).common_ps(n, n) / S
    products = [(768, 256), (256, 256), (256, 256), (256, 256), (512, 256), (256, 512), (1000, 256)]
    weights = sum(2 * rows * columns for rows, columns in products)
    moved = sum(n * 2 * (rows + columns) for rows, columns in products)
    # three norms of two reads and two writes, rotation, activation, embedding, last norm, sampling
    passes = n * (3 * 8 * 256 + 4 * (256 + 256) + 2 * (512 + 512) + 2 * 4 * 256 + 16 * 1000)
    assert took * bandwidth == pytest.approx(weights + moved + passes, rel=1e-6)


def test_a_small_model_kernel_by_kernel() -> None:
    """One layer each on an H100: a prompt of 128 tokens begins while 7 sequences decode."""
    model = small(1024, 16)
    on = _unlaunched(replace(deployment("t5-base", Cut(), devices=1), architecture=model))
    attention = model.encoder[0].layer.attention
    assert isinstance(attention, GroupedQueryAttention)

    def product(tokens: int, n: int, k: int) -> float:
        return float(gemm_s(_one(tokens), n, k, "bf16", on)[0])

    def stream(tokens: int, size: int) -> float:
        return float(passes_s(_one(tokens), size, on)[0])

    def layer(tokens: int) -> float:
        return (
            2 * stream(tokens, 8 * 1024)
            + product(tokens, 3072, 1024) + stream(tokens, 4 * 2048) + product(tokens, 1024, 1024)
            + product(tokens, 2048, 1024) + stream(tokens, 4 * 2048) + product(tokens, 1024, 2048)
            + 2 * stream(tokens, 4 * 1024)
        )  # fmt: skip

    encoder = layer(128) + float(around(attention, _one(128), on)[0]) + product(128, 2048, 1024)
    cross = stream(8, 8 * 1024) + 2 * product(8, 1024, 1024)
    both = decode_s(attention, 8, _one(128), on) + decode_s(attention, 8, _one(1), on)
    head = product(8, VOCAB, 1024) + stream(8, 16 * VOCAB)
    decoder = layer(8) + cross + float(both[0]) + head
    found = encoder_times(on, HostTime())
    took = found.mixed_ps(7, 7 * 128, [(128, 0)]) / S
    assert took == pytest.approx(encoder + decoder, rel=1e-6)


def test_the_host_launches_both_stacks() -> None:
    """At 1 ms a kernel it is the slower one: 12 layers of 10 kernels, 12 with 5 more."""
    on = deployment("t5-base", Cut(), devices=1)
    on = replace(on, software=replace(on.software, host_per_kernel_s=1e-3))
    assert encoder_times(on, HostTime()).common_ps(64, 1) / S == pytest.approx(0.3)


def test_a_host_beside_the_device_bounds_encoding_too() -> None:
    on = replace(deployment("t5-base", Cut(), devices=1), hidden_host=True)
    found = encoder_times(on, HostTime(iteration_s=0.5, sequence_s=0.1))
    assert found.mixed_ps(1, 100, [(64, 0)]) / S == pytest.approx(0.7)


def test_parts_of_prompts_are_the_iteration() -> None:
    """Attention and the rest, asked apart, are what an iteration of prompts alone takes."""
    found = times(bare(1e14, 1e12))
    chunks = [(96, 0), (160, 0)]
    assert found.mixed_ps(0, 0, chunks) == found.chunks_ps(chunks) + found.common_ps(256, 2)
    assert found.mixed_ps(3, 300, []) == step_ps(found.lines(3), 300)
    assert found.chunks_ps([]) == 0


def test_all_pairs_take_up_to_twice_the_triangle() -> None:
    """Kernels skip tiles above the diagonal but not all of their parts, and end less evenly."""
    on = deployment("t5-base", Cut(), devices=1)
    attention = GroupedQueryAttention(heads=16, kv_heads=16, head_dim=128, causal=False)
    length = np.array([8192.0])
    ratio = around(attention, length, on) / prefill_s(attention, length, np.zeros(1), on)
    assert 1.5 < ratio[0] < 2.0
    none = replace(on, kernels=Kernels(on.chip, {}))
    launch = none.software.kernel_launch_s
    exact = (around(attention, length, none) - launch) / (
        prefill_s(attention, length, np.zeros(1), none) - launch
    )
    assert exact[0] == pytest.approx(8192**2 / (8192 * 8193 / 2))


def test_experts_of_the_encoder_count() -> None:
    """NLLB-MoE: without its experts an encoder of 24 layers takes less for a prompt."""
    on = _unlaunched(deployment("nllb-moe-54b", Cut(tp=4)))
    model = on.architecture
    dense = tuple(
        replace(run, layer=replace(run.layer, ffn=model.encoder[0].layer.ffn))
        if isinstance(run.layer.ffn, MoeFfn)
        else run
        for run in model.encoder
    )
    without = replace(on, architecture=replace(model, encoder=dense))
    host = HostTime()
    more = (
        encoder_times(on, host).mixed_ps(0, 0, [(512, 0)])
        - encoder_times(without, host).mixed_ps(0, 0, [(512, 0)])
    ) / S
    # 6 layers; 512 tokens reach nearly all of 128 experts: 2 * 2048 * 8192 bf16 weights over 4
    streamed = 6 * 128 * 2 * 2048 * 8192 * 2 / 4 / on.chip.memory_bandwidth_bytes_per_s
    assert 0.8 * streamed < more < 2.0 * streamed


def test_an_encoder_takes_no_part_of_a_prompt() -> None:
    found = times(bare(1e12, 1e12))
    with pytest.raises(ValueError, match="whole"):
        found.chunks_ps([(64, 64)])


def _one(value: float) -> Array:
    return np.array([float(value)])
