"""Rows whose prefill and decode have replicas of their own."""

from typing import Any

import numpy as np
import pytest

from moesim.spec.cases import Case
from moesim.study.validate.inference.apart import is_apart, run_apart
from moesim.study.validate.inference.curve import run_row
from moesim.study.validate.inference.deployment import Deployments, read_cut
from moesim.study.validate.inference.words import Said
from moesim.study.validate.skipped import SkippedError
from tests.unit.study.validate.inference.test_any_words import CASE, no_file

ROW: dict[str, Any] = {
    "isl": 1000, "osl": 11, "concurrency": 1,
    "prefill_workers": 1, "p_tp": 1, "p_dp_attn": 1, "p_ep": 1,
    "decode_workers": 1, "d_tp": 1, "d_dp_attn": 1, "d_ep": 1,
}  # fmt: skip


def said(row: dict[str, Any], **parts: Any) -> Said:
    plain = {"workload": {"arrival": "closed_loop", "requests": 4}, "parallel": {}}
    return Said(Case("apart", "serving_curve", {**CASE, **plain, **parts}), row)


def test_alone_a_request_waits_for_its_cache_to_move_and_then_decodes_as_ever() -> None:
    # Llama-3.1-8B: 32 layers, keys and values of 8 heads of 128 in 2 bytes, 131,072 bytes a token;
    # 1000 tokens over the NVLink of one device, at what software reaches of it.
    deployments = Deployments(no_file())
    apart = run_apart(said(ROW), deployments)
    alone = run_row(said({**ROW, "prefill_workers": None, "tp": 1}), deployments)
    topology = apart.served.run.cluster.topology
    software = apart.served.on.software
    rate = topology.scale_up.bandwidth_bytes_per_s * software.scale_up_fraction
    moving = 1000 * 131_072 / rate + topology.scale_up.latency_s
    assert np.allclose(apart.ttft - alone.ttft, moving, atol=1e-8)
    assert np.allclose(apart.tpot, alone.tpot, rtol=1e-6)
    assert apart.served.devices == 2


def test_two_copies_and_split_are_read_from_the_row() -> None:
    words = {"parallel": {"variants": "2 x TP4 replicas; or prefill-decode split"}}
    both = said({"variant": "2xTP4"}, **words)
    assert not is_apart(both)
    assert read_cut(both) == {"tp": 4, "dp": 1, "ep": 1, "pp": 1, "replicas": 2}
    split = {"variant": "PD split", "isl": 100, "osl": 5, "concurrency": 2}
    asked = said(split, hardware={"chip": "H100-SXM5-80GB", "gpus": 8}, **words)
    assert is_apart(asked)
    pools = run_apart(asked, Deployments(no_file())).served.run.pools
    assert [(pool.name, pool.replicas, pool.engine.width) for pool in pools] == [
        ("prefill", 1, 4), ("decode", 1, 4),
    ]  # fmt: skip


def test_a_node_that_is_partly_used_is_no_obstacle() -> None:
    run = run_apart(said({**ROW, "p_tp": 4, "d_tp": 8}), Deployments(no_file()))
    assert run.served.devices == 12
    assert [pool.replicas for pool in run.served.run.pools] == [1, 1]
    assert run.served.run.cluster.topology.devices == 16


def test_without_ranks_it_is_said() -> None:
    with pytest.raises(SkippedError, match="ranks of prefill and decode are not said"):
        run_apart(said({**ROW, "p_tp": None}), Deployments(no_file()))
