"""Single layers, kernels, pairs of chunks and ratios, against calculations by hand.

The file's own calibration takes the measured curves away and memory is as good as endless, so a
product takes FLOP / (peak * efficiency) and a launch. With 33 experts every product here is a whole
number of waves of 64 x 64 tiles on the 132 units of an H100, so no tile is padded.
"""

from typing import Any

import pytest

from moesim.cost.fitted import kernels_for
from moesim.cost.fitted_kernels import kernel_s
from moesim.hardware.device import device
from moesim.hardware.profiles import load_accelerator
from moesim.model.operators import GroupedGemm
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.kinds import KINDS
from moesim.study.validate.ratio import _micro_batches
from moesim.study.validate.record import Record
from moesim.study.validate.run import records_of
from tests.unit.study.validate.made_up import HARDWARE, MODELS, case, case_file

BF16, FP8 = 989.4e12, 1978.9e12
"""Datasheet peaks of an H100 SXM."""
LAUNCH_S = 2.5e-6
HIDDEN, WIDTH, EXPERTS, TOKENS = 1024, 512, 33, 16896
ROWS = 2 * TOKENS
GROUPED_FLOP = 2 * ROWS * 3 * HIDDEN * WIDTH
"""Of gate, up and down projection of a layer, forward."""

WAVES: dict[str, Any] = {
    "cls": "moe", "layers": 2, "hidden": HIDDEN, "vocab": 1024, "gated": True, "experts": EXPERTS,
    "top_k": 2, "expert_ffn": WIDTH, "attn": {"heads": 8, "kv_heads": 8, "head_dim": 128},
}  # fmt: skip


def _file(**calibration: float) -> CaseFile:
    measured = {"memory_efficiency": 1e6, "grouped_gemm_efficiency": 0.5, **calibration}
    boxes = {**HARDWARE["our-boxes"], "test_calibration": measured}
    return case_file({**MODELS, "waves": WAVES}, {"our-boxes": boxes})


def _figures(of: Case, file: CaseFile) -> dict[str, float]:
    found = records_of(of, file)
    assert all(one.status == "ran" for one in found), found
    return {one.metric: one.predicted or 0.0 for one in found}


def _kernel(**changes: Any) -> Case:
    words = {
        "kind": "kernel", "model": "waves", "chips": 1,
        "parallel": {"tokens_before_topk": TOKENS, "local_experts": EXPERTS, "top_k": 2},
        "measured": {"forward_ms": 1.0, "backward_ms": 2.0, "mfu_pct": 10.0},
    } | changes  # fmt: skip
    return case(**words)


def test_grouped_products_by_hand() -> None:
    found = _figures(_kernel(), _file())
    once_s = GROUPED_FLOP / (0.5 * BF16)
    assert found == {
        "forward_ms": pytest.approx(1e3 * (once_s + 2 * LAUNCH_S)),
        "backward_ms": pytest.approx(1e3 * (2 * once_s + 4 * LAUNCH_S)),
    }


def test_grouped_products_in_fp8() -> None:
    found = _figures(_kernel(precision="fp8"), _file())
    assert found["forward_ms"] == pytest.approx(
        1e3 * (GROUPED_FLOP / (0.5 * FP8) + 2 * LAUNCH_S)
    )  # fmt: skip


def test_library_of_a_kernel_is_said() -> None:
    found = records_of(_kernel(options={"kernel": "cutlass 2"}), _file())
    assert any(text.startswith("cutlass 2: priced like") for text in found[0].assumed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parallel": {"m": 1, "n": 2, "k": 3}}, "only grouped products"),
        ({"parallel": {"tokens_before_topk": 0, "local_experts": 1, "top_k": 1}}, "only grouped"),
        ({"model": "tiny-mla"}, "no layer with experts"),
        ({"hardware": "mystery"}, "no machine profile"),
        ({"measured": {"forward_s": 1.0}}, "forward_s has no counterpart"),
    ],
)
def test_kernels_that_are_not_compared(changes: dict[str, Any], reason: str) -> None:
    (one,) = records_of(_kernel(**changes), _file())
    assert one.status == "skipped"
    assert reason in one.reason


def _layer(**changes: Any) -> Case:
    words = {
        "kind": "moe_layer_fwd_bwd", "parallel": {"tp": 1, "ep": 4, "mbs": 1, "seq": 512},
        "measured": {"forward_ms": 1.0, "backward_ms": 2.0},
        "options": {"cuda_graph": "full"},  # a layer as small as these waits for its launches
    } | changes  # fmt: skip
    return case(**words)


def test_layer_is_without_attention_norms_embedding_and_logits() -> None:
    plain = _figures(_layer(), case_file())
    wider = {**MODELS["tiny-moe"], "vocab": 10**6, "layers": 9, "dense_ffn": 9999}
    wider["attn"] = {"heads": 64, "kv_heads": 64, "head_dim": 128}
    assert _figures(_layer(), case_file({"tiny-moe": wider})) == plain


def test_layer_without_shared_expert_or_exchange_is_faster() -> None:
    plain = _figures(_layer(), case_file())
    alone = {**MODELS["tiny-moe"], "shared_expert_ffn": 0}
    no_shared = _figures(_layer(), case_file({"tiny-moe": alone}))
    one_rank = {"tp": 1, "ep": 1, "mbs": 1, "seq": 512}
    for metric in ("forward_ms", "backward_ms"):
        assert no_shared[metric] < plain[metric]
    kept_at_home = _figures(_layer(parallel=one_rank, chips=1), _file())
    assert kept_at_home["forward_ms"] < _figures(_layer(), _file())["forward_ms"]


def test_layer_is_its_router_and_its_experts_where_memory_is_free() -> None:
    """On one device and with free memory: two grouped products and a router, and six launches
    more for permutations, sorts and the activation. The router is 33 of 64 columns of a tile."""
    words = {"tp": 1, "ep": 1, "mbs": 1, "seq": TOKENS}
    found = _figures(_layer(model="waves", parallel=words, chips=1), _file(gemm_efficiency=1.0))
    experts_s = GROUPED_FLOP / (0.5 * BF16)
    router_s = 2 * TOKENS * 64 * HIDDEN / BF16
    assert found["forward_ms"] == pytest.approx(1e3 * (experts_s + router_s + 8 * LAUNCH_S))


def test_kernels_of_an_older_generation_run_per_unit_and_clock_as_there() -> None:
    """An H100 has 132 units to an A100's 108 at 1830 to 1410 MHz, the clocks of the datasheet
    peaks: 1.586 times as fast with the same instructions, half of 989.4 over 312."""
    library = {"kernel": "grouped_gemm 1.14 (cutlass)"}
    found = _figures(_kernel(options=library), case_file({**MODELS, "waves": WAVES}))
    on = kernels_for(device(load_accelerator("a100-sxm-80gb")), 3e11, {"grouped_gemm": ("trtllm",)})
    rows = (2 * TOKENS // EXPERTS,) * EXPERTS
    both = [
        GroupedGemm(
            name="p", module="moe", input_from="x", rows=rows, n=n, k=k, dtype="bf16"
        )
        for n, k in ((2 * WIDTH, HIDDEN), (HIDDEN, WIDTH))
    ]  # fmt: skip
    there_s = sum(known.seconds for one in both if (known := kernel_s(one, on)))
    faster = 132 / 108 * 1830 / 1410
    assert found["forward_ms"] == pytest.approx(1e3 * there_s / faster, rel=1e-3)
    plain = _figures(_kernel(), case_file({**MODELS, "waves": WAVES}))
    assert plain["forward_ms"] < found["forward_ms"]


def _peak(width: int, dispatcher: str, **changes: Any) -> float:
    """Return the peak of two of eight experts of `width` on a rank, in values of two bytes."""
    alone = {**MODELS["tiny-moe"], "shared_expert_ffn": 0, "expert_ffn": width}
    metric = "peak_mem_allocated_gb"
    words = {"measured": {metric: 1.0}, "options": {"dispatcher": dispatcher}, **changes}
    return _figures(_layer(**words), case_file({"tiny-moe": alone}))[metric] * 1e9 / 2


HIDDEN_ROWS, SENT_ROWS = 512 * 1024, 1024 * 1024
"""Values of the rank's 512 tokens, hidden width 1,024, and of their two choices."""


def test_memory_of_a_layer_by_hand_where_its_activation_is_wide() -> None:
    """Weights; what router, first product and activation keep; the gradient of the product's
    input, that of gate and up in fp32 and in bf16; output and its gradient; weights of one of three
    matrices."""
    width, rows = 2048, 1024
    weights = 2 * 3 * 1024 * width + 8 * 1024
    kept = HIDDEN_ROWS + SENT_ROWS + rows * 2 * width
    gradients = rows * width + (2 + 1) * rows * 2 * width + 2 * HIDDEN_ROWS + 2 * 1024 * width
    for dispatcher in ("alltoall", "DeepEP", "HybridEP"):
        assert _peak(width, dispatcher) == pytest.approx(weights + kept + gradients)


@pytest.mark.parametrize(
    ("dispatcher", "named"),
    [
        # sent, received, given back by the experts, given back in the order of their sources
        ("alltoall", 4 * SENT_ROWS),
        # for each rank reached, 4 (1 - C(6, 2) / C(8, 2)) of them, and back; the experts' output
        ("DeepEP", 2 * HIDDEN_ROWS * 4 * (1 - 15 / 28) + SENT_ROWS),
        ("HybridEP", SENT_ROWS),
    ],
)
def test_memory_of_a_layer_by_hand_where_its_rows_are_wide(dispatcher: str, named: float) -> None:
    width, rows = 32, 1024
    weights = 2 * 3 * 1024 * width + 8 * 1024
    kept = HIDDEN_ROWS + SENT_ROWS + rows * 3 * width
    if dispatcher == "HybridEP":  # then the backward pass has more: gradients of the first product
        kept -= rows * 3 * width
        named = rows * 2 * width + SENT_ROWS + 2 * HIDDEN_ROWS + 2 * 3 * 1024 * width
    assert _peak(width, dispatcher) == pytest.approx(weights + kept + named)


def test_fp8_layers_hold_two_narrow_copies_of_weights_and_the_sorted_rows_beside_them() -> None:
    """Half of what products keep, the rows in bf16 as well while the forward pass runs."""
    width, rows = 32, 1024
    weights = 2 * 3 * 1024 * width
    kept = HIDDEN_ROWS + SENT_ROWS / 2 + rows * (2 + 0.5) * width
    copies = weights * (1 + 4 / 128)
    expected = weights + 8 * 1024 + copies + kept + 5 * SENT_ROWS
    assert _peak(width, "alltoall", precision="fp8-blockwise") == pytest.approx(expected)


def test_model_without_experts_has_no_such_layer() -> None:
    (one,) = records_of(_layer(model="tiny-mla", parallel={"mbs": 1, "seq": 64}), case_file())
    assert one.reason == "the model has no layer with experts"


CHUNK_FIGURES = (
    "gpu_span_ms", "compute_stream_busy_ms", "comm_stream_busy_ms", "dispatch_fwd_ms_total",
    "dispatch_bwd_ms_total", "combine_ms_total", "flash_attn_fwd_ms_each",
    "flash_attn_bwd_ms_each", "fp8_wgrad_grouped_gemm_ms_total", "fp8_m_grouped_gemm_ms_total",
    "fp8_dense_gemm_ms_total",
)  # fmt: skip


def _chunk(**changes: Any) -> Case:
    measured = dict.fromkeys(CHUNK_FIGURES, 1.0)
    words = {
        "kind": "chunk_fwd_bwd", "model": "waves", "precision": "fp8", "chips": 1,
        "parallel": {"tp": 1, "ep": 1, "mbs": 1, "seq": TOKENS, "pp": "excluded"},
        "measured": measured,
    } | changes  # fmt: skip
    return case(**words)


def test_kernels_of_a_chunk_by_hand() -> None:
    """Two layers. Attention forward has a product as wide as keys and one as wide as values,
    backward three and two; grouped products run forward, for inputs, and for weights."""
    found = _figures(_chunk(), _file(attention_fwd_efficiency=0.5))
    core = 2 * 8 * 128 * TOKENS * (TOKENS + 1) / 2 / (0.5 * BF16)
    assert found["flash_attn_fwd_ms_each"] == pytest.approx(1e3 * (2 * core + LAUNCH_S))
    assert found["flash_attn_bwd_ms_each"] == pytest.approx(1e3 * (5 * core + LAUNCH_S))
    grouped = 2 * GROUPED_FLOP / (0.5 * FP8)
    weights, rest = grouped + 4 * LAUNCH_S, 2 * grouped + 8 * LAUNCH_S
    # gradients of weights are one kernel class, dense products of attention in: a third of them
    dense = found["fp8_dense_gemm_ms_total"] / 2
    assert found["fp8_wgrad_grouped_gemm_ms_total"] == pytest.approx(1e3 * weights + dense)
    assert found["fp8_m_grouped_gemm_ms_total"] == pytest.approx(1e3 * rest)


def test_compute_beside_exchanges_has_fewer_units() -> None:
    """20 of 132 units go to exchanges: c (1 + x / c 20/132) for exchanges as short as x < c."""
    many = {"chips": 8, "parallel": {"tp": 1, "ep": 8, "mbs": 1, "seq": TOKENS, "pp": "excluded"}}
    found = _figures(_chunk(**many, model="tiny-moe"), case_file())
    alone = _figures(_chunk(model="tiny-moe"), case_file())
    exchanged = found["comm_stream_busy_ms"]
    slowed = found["flash_attn_fwd_ms_each"] / alone["flash_attn_fwd_ms_each"]
    compute = found["compute_stream_busy_ms"]
    assert compute - compute / slowed == pytest.approx(exchanged * 20 / 132)


def test_chunks_on_one_device_exchange_nothing_and_follow_each_other() -> None:
    found = _figures(_chunk(), _file())
    assert found["comm_stream_busy_ms"] == found["combine_ms_total"] == 0.0
    assert found["gpu_span_ms"] == pytest.approx(found["compute_stream_busy_ms"])


def test_chunks_hide_exchanges_behind_each_other() -> None:
    many = _chunk(chips=8, model="tiny-moe", parallel={"tp": 1, "ep": 8, "mbs": 1, "seq": 4096})
    found = _figures(many, case_file())
    busy = (found["compute_stream_busy_ms"], found["comm_stream_busy_ms"])
    assert 0 < max(busy) <= found["gpu_span_ms"] < sum(busy)
    exchanged = ("dispatch_fwd_ms_total", "dispatch_bwd_ms_total", "combine_ms_total")
    assert sum(found[name] for name in exchanged) == pytest.approx(busy[1])


RATIO: dict[str, Any] = {
    "kind": "ratio", "chips": 8, "parallel": {"ep": 8, "gbs": 8, "seq": 512},
    "measured": {"speedup_over_tutel_dropless": 1.5},
}  # fmt: skip


def test_buffers_of_the_fullest_expert_cost_nothing_where_all_are_equally_full() -> None:
    found = _figures(case(**RATIO), case_file())
    assert found["speedup_over_tutel_dropless"] == pytest.approx(1.0)


def test_buffers_of_the_fullest_expert_cost_time_under_natural_routing() -> None:
    long = {
        "parallel": {"ep": 8, "gbs": 8, "seq": 8192},
        "options": {"routing": "natural", "cuda_graph": "full"},
    }
    (one,) = records_of(case(**(RATIO | long)), case_file())
    assert (one.predicted or 0.0) > 1.001
    assert any("fits: 1 and 1" in text for text in one.assumed)


@pytest.mark.parametrize(
    ("parallel", "sizes"),
    [({"gbs": 48}, [2, 1]), ({"gbs": 512}, [64, 32, 16, 8, 4, 2, 1]), ({"gbs": 8}, [1]),
     ({"gbs": 16, "pp": 4}, [8, 4, 2, 1]), ({"gbs": 64, "mbs": 8}, [8])],
)  # fmt: skip
def test_micro_batches_to_try(parallel: dict[str, int], sizes: list[int]) -> None:
    assert list(_micro_batches(case(chips=8, parallel=parallel))) == sizes


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("campaign", "kind campaign is not compared"), ("energy", "kind energy is not compared")],
)  # fmt: skip
def test_other_kinds_are_said(kind: str, reason: str) -> None:
    (one,) = records_of(case(kind=kind), case_file())
    assert (one.status, one.reason) == ("skipped", reason)


def test_fault_of_our_own_costs_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(case: Case, file: CaseFile, record: Record) -> list[Record]:
        raise KeyError("something")

    monkeypatch.setattr("moesim.study.validate.kinds.KINDS", {**KINDS, "train_step": fails})
    (one,) = records_of(case(), case_file())
    assert one.reason == "internal error: KeyError: 'something'"
