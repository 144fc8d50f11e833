"""DeepEP's test logs: which lines count, what they leave unsaid, what is refused."""

import re
from dataclasses import replace
from typing import Any

import pytest

from moesim.calibrate.importers.deepep import is_deepep, read_deepep
from moesim.calibrate.importers.rows import Imported
from moesim.errors import CalibrationError
from tests.unit.calibrate.importers.samples import H100, INTERNODE, INTRANODE, LOW_LATENCY

TWO_NODES = replace(H100, num_nodes=2, network="8x400 Gb/s per node")


def read(text: str, facts: Any = H100) -> Imported:
    return read_deepep(text, "run.log", facts)


def rows(text: str, facts: Any = H100) -> Any:
    return read(text, facts).tables["moe_alltoall"]


def test_the_best_lines_of_a_node_are_rows() -> None:
    assert is_deepep(INTRANODE)
    found = read(INTRANODE)
    dispatch, wide, combine = found.tables["moe_alltoall"]
    assert dispatch == {
        "hardware": "h100_sxm", "library": "deepep", "library_version": "unknown",
        "algorithm": None, "ep_size": 8, "num_nodes": 1, "gpus_per_node": 8, "network": "none",
        "mode": "high_throughput", "phase": "dispatch", "payload_dtype": "fp8_block128",
        "tokens_per_rank": 4096, "hidden_size": 7168, "top_k": 8, "num_experts": 256,
        "max_nodes_per_token": 1, "num_sms": 24, "time_us": 970.25, "notify_us": None,
        "reported_bandwidth_GB_per_s": 153.2, "bandwidth_kind": "nvlink",
        "time_origin": "measured", "quality": "ok", "source": "deepep-tests",
    }  # fmt: skip
    assert (wide["payload_dtype"], wide["time_us"]) == ("bf16", 1860.5)
    assert (combine["phase"], combine["payload_dtype"]) == ("combine", "bf16")
    assert sum(found.left_out.values()) == 2  # steps of the tuning
    assert [note.split(":")[0] for note in found.notes] == ["8 GPUs, 8 a node", "num_experts 256"]


def test_what_is_told_overrules_defaults_and_says_nothing() -> None:
    told = replace(H100, num_gpus=4, shape={"num_experts": 128, "tokens_per_rank": 2048})
    found = read(INTRANODE, told)
    row = found.tables["moe_alltoall"][0]
    assert (row["ep_size"], row["num_experts"], row["tokens_per_rank"]) == (4, 128, 2048)
    assert found.notes == ()


def test_between_nodes_notification_and_exchange_are_kept_apart() -> None:
    dispatch, combine = rows(INTERNODE, TWO_NODES)
    assert (dispatch["time_us"], dispatch["notify_us"]) == (1510.0, 98.0)
    assert (dispatch["ep_size"], dispatch["num_nodes"]) == (16, 2)
    assert dispatch["max_nodes_per_token"] == 2  # of 4 groups at most 2 nodes
    assert dispatch["bandwidth_kind"] == "rdma_logical"
    assert dispatch["reported_bandwidth_GB_per_s"] == 58.31
    # a line without a time stays without one: no time is made of a bandwidth
    assert (combine["time_us"], combine["time_origin"]) == (None, "bandwidth_only")
    assert any("no time" in note for note in read(INTERNODE, TWO_NODES).notes)


def test_nodes_and_network_must_be_told() -> None:
    with pytest.raises(CalibrationError, match=r"run\.log:3: .*--num-nodes"):
        read(INTERNODE)
    with pytest.raises(CalibrationError, match="at least 2"):
        read(INTERNODE, replace(H100, num_nodes=1))
    with pytest.raises(CalibrationError, match="--network"):
        read(INTERNODE, replace(H100, num_nodes=2))


def test_low_latency_has_a_row_for_each_rank_and_phase() -> None:
    found = read(LOW_LATENCY)
    rows_found = found.tables["moe_alltoall"]
    times = [(row["phase"], row["payload_dtype"], row["time_us"]) for row in rows_found]
    assert times == [
        ("dispatch", "fp8_block128", 77.0), ("combine", "bf16", 114.0),
        ("dispatch", "fp8_block128", 79.0), ("combine", "bf16", 116.0),
    ]  # fmt: skip
    assert {row["ep_size"] for row in rows_found} == {2}
    assert {row["mode"] for row in rows_found} == {"low_latency"}
    assert found.left_out == {
        "dispatch and combine in one time": 2, "send and receive apart (return_recv_hook)": 2,
    }  # fmt: skip
    assert len(found.notes) == 4  # tokens, hidden size, top k, experts are the test's defaults


def test_output_of_two_ranks_in_one_line() -> None:
    lines = [line for line in LOW_LATENCY.splitlines() if "] Dispatch bandwidth" in line]
    assert rows("".join(lines)) == rows(LOW_LATENCY)


def test_a_shape_that_the_bandwidth_contradicts_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"run\.log:4: dispatch moved 7,515,200 bytes"):
        read(LOW_LATENCY, replace(H100, shape={"tokens_per_rank": 64}))
    # combine in logfmt moves 10 bits a value instead of 16
    narrow = LOW_LATENCY.replace("127.50 GB/s", "79.70 GB/s")
    with pytest.raises(CalibrationError, match="combine moved"):
        read(narrow)


def test_more_ranks_than_devices() -> None:
    with pytest.raises(CalibrationError, match="rank 1 among 1 GPUs"):
        read(LOW_LATENCY, replace(H100, num_gpus=1))
    far = LOW_LATENCY.replace("[rank 1]", "[rank 15]")
    with pytest.raises(CalibrationError, match="--num-nodes"):
        read(far)
    assert rows(far, TWO_NODES)[0]["ep_size"] == 16


BAD = [
    ("[tuning] Best dispatch (FP8): SMs 24, NVL ch", "not a result of DeepEP"),
    ("[tuning] Best dispatch: SMs 24, NVL chunk 4: 9.0 GB/s (NVL)", "neither|FP8 or BF16"),
    ("[tuning] Best combine: SMs 24, NVL chunk 4: 9.0 GB/s (XGMI)", "nothing else"),
    ("[tuning] Best combine: SMs 24, NVL chunk 4: 9.0 ms", "nothing else"),
    ("[tuning] Best combine: SMs 24, NVL chunk 4: ", "the line is cut"),
    ("[tuning] Best combine: SMs 24, NVL chunk 4: 0 us", "a time of 0"),
    ("[rank 0] Dispatch bandwidth: 98.1 GB/s, avg_t=7", "not a result of DeepEP"),
]


@pytest.mark.parametrize(("line", "says"), BAD)
def test_a_line_that_is_not_understood_is_named(line: str, says: str) -> None:
    with pytest.raises(CalibrationError, match=rf"run\.log:2: .*({says})"):
        read(f"[config] num_tokens=4096, hidden=7168, num_topk=8\n{line}\n")


def test_a_result_without_its_shape_is_refused() -> None:
    text = INTRANODE.split("\n", 1)[1]
    with pytest.raises(CalibrationError, match=re.escape("--set tokens_per_rank=")):
        read(text)
    many = replace(H100, shape={"top_k": 300})
    with pytest.raises(CalibrationError, match="top_k 300 of 256 experts"):
        read(INTRANODE, many)
