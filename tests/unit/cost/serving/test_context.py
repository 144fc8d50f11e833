"""A cache spread over decode context parallel ranks: limits that hold whatever the curves say."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.cost.serving.context import exchanged_s, gathered_s, most_ranks, spread_decode_s
from moesim.cost.serving.deployment import Cut, Deployment
from moesim.cost.serving.memory import stage_cache_bytes
from moesim.cost.serving.table import HostTime, iteration_times
from moesim.cost.serving.transfer import moved_bytes_per_token
from moesim.model.architecture import GroupedQueryAttention, LatentAttention
from tests.unit.cost.serving.deployments import deployment


def _spread(model: str, dcp: int) -> Deployment:
    on = deployment(model, Cut(tp=8, dcp=dcp))
    same = deployment(model, Cut(tp=dcp)).networks["tp"]  # as many ranks of one domain
    return replace(on, networks={**on.networks, "dcp": same})


def _attention(on: Deployment) -> GroupedQueryAttention | LatentAttention:
    attention = on.architecture.decoder[-1].layer.attention
    assert isinstance(attention, GroupedQueryAttention | LatentAttention)
    return attention


@pytest.mark.parametrize(("model", "dcp", "cached"), [
    ("deepseek-v3", 8, 61 * 2 * 576 / 8), ("deepseek-v3", 2, 61 * 2 * 576 / 2),
    ("qwen3-30b-a3b", 2, 48 * 2 * 128 * 2 / 2),
])  # fmt: skip
def test_each_rank_holds_its_share_of_the_tokens(model: str, dcp: int, cached: float) -> None:
    on = _spread(model, dcp)
    assert stage_cache_bytes(on) == [cached]
    assert moved_bytes_per_token(on) == 8 * cached  # each copy that is left is sent once


@pytest.mark.parametrize(("model", "tp", "most"), [
    ("deepseek-v3", 8, 8), ("qwen3-30b-a3b", 8, 2), ("qwen3-30b-a3b", 4, 1), ("mixtral-8x7b", 8, 1),
    ("qwen3-30b-a3b", 2, 1),
])  # fmt: skip
def test_only_copies_can_be_spread(model: str, tp: int, most: int) -> None:
    on = deployment(model, Cut(tp=tp))
    assert most_ranks(_attention(on), tp) == most


@pytest.mark.parametrize(("model", "dcp", "width", "most"), [
    ("deepseek-v3", 8, 576 * 2, 0.4), ("qwen3-30b-a3b", 2, 2 * 128 * 2, 0.7),
])  # fmt: skip
def test_long_caches_are_read_in_parts(model: str, dcp: int, width: int, most: float) -> None:
    """Of 16 sequences of 128 Ki tokens a rank reads 1 / dcp, at the memory's rate at most."""
    on, tokens = _spread(model, dcp), np.array([131072.0])
    attention = _attention(on)
    one = iteration_times(deployment(model, Cut(tp=8)), HostTime())
    spread = iteration_times(on, HostTime())
    # latent attention of all 128 heads has as much to compute as to read, so it gains less
    ours, whole = (t.attention(16).starts[-1] + t.attention(16).slopes[-1] * 16 * 131072
                   for t in (spread, one))  # fmt: skip
    assert ours < most * whole
    took = float(spread_decode_s(attention, 16, tokens, on)[0])
    assert took > 16 * 131072 / dcp * width / on.chip.memory_bandwidth_bytes_per_s


@pytest.mark.parametrize(("model", "dcp", "query", "value"), [
    ("deepseek-v3", 8, 576, 512), ("qwen3-30b-a3b", 2, 128, 128),
])  # fmt: skip
def test_queries_and_results_travel(model: str, dcp: int, query: int, value: int) -> None:
    """All heads of dcp ranks, but a rank's own: (dcp - 1) / dcp of them over the link each way."""
    on = _spread(model, dcp)
    attention = _attention(on)
    rows, heads = np.array([8192.0]), attention.heads * dcp / 8
    moved = 8192 * heads * (2 * query + 2 * value + 4 * dcp) * (dcp - 1) / dcp
    took = float(exchanged_s(attention, rows, on)[0])
    rate = 450e9  # NVLink of an H100, one direction
    assert moved / rate < took < 4 * moved / rate


def test_short_caches_lose_by_it() -> None:
    few, none = (iteration_times(on, HostTime()) for on in (
        _spread("deepseek-v3", 8), deployment("deepseek-v3", Cut(tp=8))))  # fmt: skip
    assert few.attention(1).starts[0] > none.attention(1).starts[0]


def test_chunks_gather_what_was_before_them() -> None:
    on, dense = _spread("deepseek-v3", 8), _spread("qwen3-30b-a3b", 2)
    tokens, past = np.array([512.0, 512.0]), np.array([0.0, 65536.0])
    for one in (on, dense):
        found = gathered_s(_attention(one), tokens, past, one)
        assert found[0] == pytest.approx(0.0, abs=2e-5) and found[1] > 0
    latent = gathered_s(_attention(on), tokens, past, on)
    assert latent[1] > 65536 * 1152 * 7 / 8 / 450e9
    alone = deployment("deepseek-v3", Cut(tp=8))
    assert not gathered_s(_attention(alone), tokens, past, alone).any()
