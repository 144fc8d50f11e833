"""Torch traces: kernels find their operators, operators become rows, the rest is counted."""

import json
from dataclasses import replace
from typing import Any

import pytest

from moesim.calibrate.importers.kernel_classes import kernel_class
from moesim.calibrate.importers.rows import Imported
from moesim.calibrate.importers.torch_operators import shaped
from moesim.calibrate.importers.torch_trace import is_torch_trace, read_torch_trace
from moesim.errors import CalibrationError
from tests.unit.calibrate.importers.samples import (
    BF16,
    FLASH,
    FLASH_CONCRETE,
    GATHERED,
    GEMM,
    H100,
    KEYS,
    NCCL,
    QUERY,
    SECRETS,
    TRACE,
    kernel,
    operator,
    trace,
)


def read(text: str, facts: Any = H100) -> Imported:
    return read_torch_trace(text, "trace.json", facts)


def gathered(world_size: int = 8, facts: Any = H100, /, **changes: Any) -> Imported:
    text = trace(kernel(4, NCCL, 30.0, **{**GATHERED, **changes}), world_size=world_size)
    return read(text, facts)


def test_a_product_takes_the_time_of_all_kernels_that_it_started() -> None:
    assert is_torch_trace(TRACE)
    first, second = read(TRACE).tables["gemm"]
    assert first == {
        "hardware": "h100_sxm", "framework": "pytorch", "framework_version": "unknown",
        "dtype": "bf16", "kernel": "aten::mm", "m": 512, "n": 14336, "k": 4096,
        "weights_l2_resident": False, "timing": "kernel_profiler", "time_us": 100.0,
        "quality": "ok", "source": "torch-profiler",
    }  # fmt: skip
    assert second["time_us"] == 110.0


def test_attention_counts_its_dimensions_in_the_operator_s_order() -> None:
    (row,) = read(TRACE).tables["attention_prefill"]
    shape = {name: row[name] for name in ("num_heads", "num_kv_heads", "head_dim", "batch_size",
             "seq_len", "past_kv_tokens", "sliding_window", "kernel", "time_us")}  # fmt: skip
    assert shape == {
        "num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "batch_size": 2, "seq_len": 4096,
        "past_kv_tokens": 0, "sliding_window": 0, "kernel": "flash_attention", "time_us": 800.0,
    }  # fmt: skip


def test_kernels_are_counted_by_class_and_none_is_lost() -> None:
    found = {one.name: (one.kernels, one.total_us, one.used) for one in read(TRACE).classes}
    assert found == {
        "attention": (1, 800.0, 1), "deepep": (1, 250.0, 0), "gemm": (3, 210.0, 3),
        "collective": (1, 30.0, 1), "elementwise": (1, 5.0, 0),
    }  # fmt: skip


def test_a_kernel_without_an_id_belongs_to_its_launch() -> None:
    launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1, "dur": 3,
              "args": {"External id": 1, "correlation": 7000}}  # fmt: skip
    shapes = operator(1, "aten::mm", [[8, 16], [16, 32]], [BF16, BF16])
    (row,) = read(trace(shapes, launch, kernel(None, GEMM, 4.0))).tables["gemm"]
    assert (row["m"], row["n"], row["k"], row["time_us"]) == (8, 32, 16, 4.0)


def test_nothing_private_is_in_what_is_read() -> None:
    assert not any(secret in repr(read(TRACE)) for secret in SECRETS)


# shapes as torch records them; m, n, k by hand
PRODUCTS = [
    ("aten::addmm", [[32], [8, 16], [16, 32]], [BF16] * 3, (8, 32, 16)),
    ("aten::linear", [[2, 4, 16], [32, 16]], [BF16] * 2, (8, 32, 16)),
    ("aten::bmm", [[1, 8, 16], [1, 16, 32]], [BF16] * 2, (8, 32, 16)),
]


@pytest.mark.parametrize(("name", "dims", "types", "expected"), PRODUCTS)
def test_products(name: str, dims: Any, types: Any, expected: tuple[int, int, int]) -> None:
    found = shaped(name, {"Input Dims": dims, "Input type": types})
    assert found.table == "gemm"
    assert (found.row["m"], found.row["n"], found.row["k"]) == expected


@pytest.mark.parametrize(
    ("types", "kernels", "dtype"),
    [(["c10::Half"] * 2, "", "fp16"), (["float"] * 2, "ampere_sgemm_128x64", "fp32"),
     (["float"] * 2, "sm80_xmma_gemm_f32f32_tf32f32_f32", "tf32")],
)  # fmt: skip
def test_number_types(types: list[str], kernels: str, dtype: str) -> None:
    found = shaped("aten::mm", {"Input Dims": [[8, 16], [16, 32]], "Input type": types}, kernels)
    assert found.row["dtype"] == dtype


def test_a_scaled_product_has_one_scale_a_tensor_or_no_row() -> None:
    fp8 = ["c10::Float8_e4m3fn"] * 2
    one = {"Input Dims": [[8, 16], [16, 32], [], []], "Input type": fp8}
    many = {"Input Dims": [[8, 16], [16, 32], [8, 1], [1, 32]], "Input type": fp8}
    assert shaped("aten::_scaled_mm", one).row["dtype"] == "fp8_tensor_static"
    assert "number types" in shaped("aten::_scaled_mm", many).reason


NO_PRODUCT = [
    ([[8, 16], [17, 32]], [BF16, BF16], "do not match"),
    ([[8, 16], [16, 32]], [BF16, "float"], "number types"),
    ([[4, 8, 16], [4, 16, 32]], [BF16, BF16], "batched"),
    ([[8, 16]], [BF16], "not those of matrices"),
    ([[0, 16], [16, 32]], [BF16, BF16], "not those of matrices"),
    (None, None, "record_shapes=True"),
]


@pytest.mark.parametrize(("dims", "types", "says"), NO_PRODUCT)
def test_products_without_a_row(dims: Any, types: Any, says: str) -> None:
    found = read(trace(operator(1, "aten::mm", dims, types), kernel(1, GEMM, 5.0)))
    assert found.tables == {}
    assert [says in reason for reason in found.left_out] == [True]
    assert found.classes[0].used == 0


def sdpa(query: list[int], keys: list[int], causal: str, mask: Any = ()) -> Any:
    """scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, …)."""
    args = {"Input Dims": [query, keys, keys, list(mask), [], []], "Input type": [BF16] * 3,
            "Concrete Inputs": ["", "", "", "", "0.", causal, "", "True"]}  # fmt: skip
    return shaped("aten::scaled_dot_product_attention", args)


def test_sdpa_has_its_heads_before_the_sequence() -> None:
    row = sdpa([2, 32, 512, 128], [2, 8, 512, 128], "True").row
    assert (row["num_heads"], row["num_kv_heads"], row["seq_len"]) == (32, 8, 512)


def test_one_query_against_a_cache_is_decode() -> None:
    found = sdpa([64, 32, 1, 128], [64, 8, 2048, 128], "False")
    assert found.table == "attention_decode"
    assert (found.row["batch_size"], found.row["kv_tokens"]) == (64, 2048)
    assert found.row["kv_l2_resident"] is False


NO_ATTENTION = [
    (([2, 32, 512, 128], [2, 8, 512, 128], "False"), "not causal"),
    (([2, 32, 512, 128], [2, 8, 512, 128], ""), "does not say is_causal"),
    (([2, 32, 64, 128], [2, 8, 512, 128], "True"), "more or fewer keys"),
    (([2, 32, 1, 128], [2, 8, 512, 128], "True"), "more or fewer keys"),
    (([2, 32, 512, 128], [2, 5, 512, 128], "True"), "do not match"),
    (([512, 32, 128], [512, 8, 128], "True"), "different lengths"),
    (([2, 32, 512, 128], [2, 8, 512, 128], "True", (512, 512)), "mask"),
]


@pytest.mark.parametrize(("given", "says"), NO_ATTENTION)
def test_attention_without_a_row(given: Any, says: str) -> None:
    assert says in sdpa(*given).reason


def test_a_sliding_window_is_no_full_attention() -> None:
    # _flash_attn_forward(q, k, v, dropout_p, softmax_scale, causal, window_left, window_right, …)
    args = {"Input Dims": [QUERY, KEYS, KEYS], "Input type": [BF16] * 3}
    full = ["", "", "", "0.", "0.088", "True", "-1", "-1"]
    found = shaped("flash_attn::_flash_attn_forward", {**args, "Concrete Inputs": full})
    assert found.row["seq_len"] == 4096
    window = [*full[:6], "1024", "0"]
    found = shaped("flash_attn::_flash_attn_forward", {**args, "Concrete Inputs": window})
    assert "sliding window" in found.reason


# bytes as nccl-tests counts them: output of a gather, input of a scatter, send buffer of the rest
SIZES = [
    ("_allgather_base", 1024, 8192, "all_gather", 16384),
    ("_reduce_scatter_base", 8192, 1024, "reduce_scatter", 16384),
    ("allreduce", 8192, 8192, "all_reduce", 16384),
    ("all_to_all", 8192, 8192, "alltoall", 16384),
]


@pytest.mark.parametrize(("name", "sent", "got", "collective", "size"), SIZES)
def test_collectives(name: str, sent: int, got: int, collective: str, size: int) -> None:
    changes: Any = {"Collective name": name, "In msg nelems": sent, "Out msg nelems": got}
    found = gathered(**changes)
    (row,) = found.tables["collectives"]
    assert (row["collective"], row["bytes"], row["dtype"]) == (collective, size, "bf16")
    assert (row["num_gpus"], row["num_nodes"], row["library_version"]) == (8, 1, "2.21.5")
    assert (row["library"], row["quality"]) == ("nccl", "unchecked")
    assert "wait" in found.notes[0]


NO_COLLECTIVE = [
    ({"Collective name": "barrier"}, "no word"),
    ({"dtype": "Complex"}, "no word"),
    ({"Group size": 1}, "single rank"),
    ({"In msg nelems": 0}, "without its size"),
    ({"Out msg nelems": 8000}, "do not match its ranks"),
    ({"Collective name": "all_to_allv", "In split size": "[1, 2, 3, 4, 5, 6, 7, 8]"}, "uneven"),
    ({"Collective name": "all_to_allv", "In split size": "[128, 128, ..., 128]"}, "uneven"),
]


@pytest.mark.parametrize(("changes", "says"), NO_COLLECTIVE)
def test_collectives_without_a_row(changes: Any, says: str) -> None:
    found = gathered(**changes)
    assert found.tables == {}
    assert [says in reason for reason in found.left_out] == [True]


def test_nodes_of_a_group_are_those_of_its_ranks() -> None:
    two = replace(H100, num_nodes=2, network="8x400 Gb/s per node")
    inside, across = "[8, 9, 10, 11, 12, 13, 14, 15]", "[0, 2, 4, 6, 8, 10, 12, 14]"
    for ranks, nodes in ((inside, 1), (across, 2)):
        found = gathered(16, two, **{"Process Group Ranks": ranks})
        assert found.tables["collectives"][0]["num_nodes"] == nodes
    found = gathered(16, two, **{"Process Group Ranks": "[0, 1, ..., 7]"})
    assert "unknown nodes" in next(iter(found.left_out))


def test_damaged_events_are_named_or_passed_over() -> None:
    with pytest.raises(CalibrationError, match=r"traceEvents\[1\]: dur is not a number"):
        read(trace({**kernel(1, GEMM, 1.0), "dur": "hunter2"}))
    with pytest.raises(CalibrationError, match="no list traceEvents"):
        read('{"ph": 1, "cat": 2}')
    with pytest.raises(CalibrationError, match=r"trace\.json:1: not valid JSON"):
        read(TRACE[:-3])
    with pytest.raises(CalibrationError, match="too deep"):
        read("[" * 100_000)
    odd = trace(7, None, {"ph": "X", "cat": "cpu_op", "args": 3}, kernel(1, GEMM, 0.0),
                operator(1, "aten::mm", [[8, 16], [16, 32]], [BF16, BF16]))  # fmt: skip
    assert read(odd).left_out == {"kernels of no duration": 1}


def test_operators_that_share_an_id_are_told() -> None:
    twice = [operator(1, "aten::mm", [[8, 16], [16, 32]], [BF16, BF16])] * 2
    found = read(trace(*twice, kernel(1, GEMM, 3.0)))
    assert found.left_out == {"operators that share an external id": 1}


def test_a_trace_may_be_a_bare_list_of_events() -> None:
    events = json.loads(TRACE)["traceEvents"]
    assert read(json.dumps(events)).tables["gemm"] == read(TRACE).tables["gemm"]


CLASSES = [
    (FLASH, "attention"),
    (GEMM, "gemm"),
    (NCCL, "collective"),
    ("nvjet_tst_128x256_64x4_2x1_v_bz_coopB_TNT", "gemm"),
    ("void deep_ep::internode::combine<...>", "deepep"),
    ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<7168, 2048>", "gemm"),
    ("fused_moe_kernel", "grouped gemm"),
    ("void cutlass::device_kernel<at::cuda::detail::enable_3x_kernel_for_sm9x<GroupProblemShape>>",
     "grouped gemm"),
    ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", "attention"),
    ("void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda>", "memory copy"),
    ("triton_red_fused__to_copy_add_mean_mul_rsqrt_0", "elementwise"),
    ("void moe::topkGatingSoftmax<8, 128>", "routing"),
    ("my_own_thing", "other"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), CLASSES)
def test_classes_of_kernels(name: str, expected: str) -> None:
    assert kernel_class(name) == expected
    assert kernel_class(name, "gpu_memcpy") == "memory copy"


def test_the_concrete_inputs_of_a_flash_kernel_are_needed() -> None:
    cut = operator(3, "aten::_flash_attention_forward", [QUERY, KEYS, KEYS], [BF16] * 3,
                   FLASH_CONCRETE[:8])  # fmt: skip
    found = read(trace(cut, kernel(3, FLASH, 800.0)))
    assert found.left_out == {"attention that does not say is_causal": 1}
