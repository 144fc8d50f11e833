"""What processes hold, and exchange kernels whose rows name machines and ranks in words."""

from math import comb
from typing import Any

import pytest

from moesim.spec.cases import Case
from moesim.study.validate.inference.asked import asked_of
from moesim.study.validate.inference.words import Said
from moesim.study.validate.record import Record
from moesim.study.validate.run import records_of
from tests.unit.study.validate.inference.test_any_words import CASE, no_file


def records(kind: str, **words: Any) -> list[Record]:
    return records_of(Case("made-up", kind, {**CASE, **words}), no_file())


def test_a_process_of_transformers_holds_weights_and_the_cache_of_its_sequence() -> None:
    # Qwen3-8B: 8,190,735,360 parameters of 2 bytes; 36 layers with keys and values of 8 heads of
    # 128, 147,456 bytes a token, for 1 and 2048 tokens. Measured by its makers: 15,947 MiB.
    by_hand = (2 * 8_190_735_360 + 147_456 * 2049) / 2**20
    [one] = records(
        "serving_point",
        model="Qwen/Qwen3-8B",
        engine={"name": "transformers"},
        precision={"weights": "see rows"},
        workload={"batch": 1, "osl": 2048},
        measured={"columns": ["isl", "quant", "gpu_memory_mb"], "rows": [[1, "BF16", 15947]]},
    )
    assert one.predicted == pytest.approx(by_hand, rel=1e-4)
    assert one.error == pytest.approx(by_hand / 15947 - 1, abs=1e-4)


DEEPEP = {
    "hardware": {"chip": "H800-SXM-80GB"},
    "workload": {"tokens_per_rank": 128, "hidden": 7168, "top_k": 8, "dispatch": "fp8"},
}


def test_pure_rdma_sends_all_but_its_own_rows_over_the_card() -> None:
    # 128 tokens to 8 experts each, 7/8 of them elsewhere, rows of 7168 (1 + 4/128) bytes, 50 GB/s.
    least_us = 1e6 * 128 * 8 * 7 / 8 * 7168 * (1 + 4 / 128) / 50e9
    table = {"columns": ["ep", "dispatch_us"], "rows": [[8, 163]]}
    [away] = records(
        "kernel_comm",
        engine={"name": "DeepEP low-latency (pure RDMA)"},
        measured=table,
        **DEEPEP,
    )
    [inside] = records(
        "kernel_comm",
        engine={"name": "DeepEP low-latency (NVLink+RDMA)"},
        measured=table,
        **DEEPEP,
    )
    assert away.predicted is not None
    assert inside.predicted is not None
    assert away.predicted > least_us > inside.predicted


def test_ranks_on_nodes_in_words_and_bandwidth_over_the_network() -> None:
    # 8 of 256 experts on 4 nodes: 4 (1 - C(192, 8) / C(256, 8)) nodes reached by each token.
    reached = 4 * (1 - comb(192, 8) / comb(256, 8))
    columns = ["arch", "ranks_x_nodes", "combine_GBps"]
    found = records(
        "kernel_comm",
        engine={"name": "DeepEP", "version": "V2"},
        hardware={"chip": "SM90 (Hopper) and SM100 (Blackwell)"},
        workload={"tokens_per_rank": 8192, "hidden": 7168, "top_k": 8},
        measured={"columns": columns, "rows": [["SM90", "8x4", 61], ["SM70", "8x2", 10]]},
    )
    assert found[0].measured == pytest.approx(1e6 * 8192 * 7168 * 2 * reached / 61e9, rel=1e-4)
    assert found[1].reason == "no machine profile for chips of SM70"


def test_the_most_that_is_put_out_is_that_of_all_requests_at_once() -> None:
    row = {"isl": 100, "osl": 10, "output_tokens_s_per_gpu_max": 1}
    said = Said(Case("made-up", "serving_point", {**CASE, "workload": {}}), row)
    asked = asked_of(said, 1)
    assert asked.in_flight is None
    assert set(asked.requests.arrival) == {0}
    assert "the most that is put out: all requests at once" in said.assumed
