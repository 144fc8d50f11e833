"""Older attention and unfused optimizer steps, by hand."""

from dataclasses import replace

import pytest

from moesim.cost.flash import AttentionKernel, slowdown
from moesim.cost.kernels import kernel_time
from moesim.cost.layout import Layout
from moesim.cost.optimizer import optimizer_rule
from moesim.cost.parameters import StageParams
from moesim.cost.recomputation import kept_bytes
from moesim.cost.unfused_update import further_passes_s
from moesim.model.fusions import Fusions
from moesim.model.layers import layer_operators
from moesim.model.named import load_model
from moesim.model.operators import AttentionCore, Pointwise
from moesim.model.shapes import Shape, Shard
from tests.unit.cost.machines import IDEAL, ROUND

LAYOUT = Layout(tp=1, pp=1, vpp=1, cp=1, ep=1, etp=1, dp=4, sequence_parallel=True,
                schedule="1f1b", dispatcher="alltoall")  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "device", "expected"),
    [
        ("fused", "h100-sxm", 1.0),
        ("flash_2", "h100-sxm", 1.75),
        ("flash_1", "h100-sxm", 3.5),
        ("flash_2", "a100-sxm-80gb", 1.0),
        ("flash_1", "a100-sxm-80gb", 2.0),
        ("unfused", "h100-sxm", 1.0),
    ],
)
def test_older_attention(kernel: AttentionKernel, device: str, expected: float) -> None:
    assert slowdown(kernel, replace(ROUND, name=device)) == expected


def test_attention_alone_is_slowed() -> None:
    core = AttentionCore(
        name="attention", module="core_attn", input_from="qkv", sequences=1, queries=1024,
        keys=1024, own_keys=1024, pairs=1024 * 1025 / 2, heads=4, kv_heads=4, qk_dim=64, v_dim=64,
        dtype="bf16",
    )  # fmt: skip
    older = replace(IDEAL, attention_slowdown=2.0)
    once, twice = kernel_time(core, ROUND, IDEAL), kernel_time(core, ROUND, older)
    assert twice.seconds == pytest.approx(2 * once.seconds)


def test_each_pass_is_a_launch() -> None:
    """3 launches of 1 us beside 2 * 1000 values of 2 bytes at 1 TB/s."""
    passes = Pointwise(
        name="norm", module="layernorm", input_from="residual", rows=10.0, elements_read=1000.0,
        elements_written=1000.0, elements_saved=0.0, dtype="bf16", launches=(3, 1),
    )  # fmt: skip
    software = replace(IDEAL, kernel_launch_s=1e-6, kernels=None)
    assert kernel_time(passes, ROUND, software).seconds == pytest.approx(3e-6 + 4000 / 1e12)


@pytest.mark.parametrize(
    ("fusions", "gradients", "distributed", "moved"),
    [
        # copy 6, unscale 8, norm 2, update 2, weights 4, zero 2
        ("megatron_2021", "bf16", False, 24 * 1000),
        ("megatron_2021", "bf16", True, 24 * 1000 / 4),
        ("megatron_2021", "fp32", False, 8 * 1000),
        ("full", "bf16", False, 0),
    ],
)
def test_passes_of_an_update(
    fusions: Fusions, gradients: str, distributed: bool, moved: float
) -> None:
    rule = optimizer_rule("adam", "fp16", gradients, distributed=distributed)
    seconds = further_passes_s(
        fusions, StageParams(attention=1000.0), rule,
        layout=LAYOUT, device=ROUND, software=IDEAL,
    )  # fmt: skip
    assert seconds == pytest.approx(moved / 1e12)


@pytest.mark.parametrize(
    ("recompute", "kept"),
    [((), 34.0 + 5 * 64 * 2048 / 6144), (("full",), 2.0)],
)
def test_activations_of_a_gpt_layer(recompute: tuple[str, ...], kept: float) -> None:
    """s b h (34 + 5 a s / h) bytes; recomputed in full 2 (arXiv 2205.05198, equation 1, table 2),
    of 22B: h 6144, 64 heads, s 2048."""
    network = load_model("megatron-22b")
    assert network.hidden == 6144
    shape = Shape(sequences=4, length=2048)
    shard = Shard(dtype="fp16", fused_attention=False, fusions="megatron_2021")
    layer = network.decoder[0].layer
    found = kept_bytes(layer_operators(layer, network.hidden, shape, shard), recompute)
    assert found / (4 * 2048 * 6144) == pytest.approx(kept)
