"""Attention and networks on devices of their own: by hand, and against a walk of the stages."""

import random
from dataclasses import replace

import numpy as np
import pytest

from moesim.cost.iteration import step_ps
from moesim.cost.serving.deployment import Cut, Deployment, Formats
from moesim.cost.serving.layer import routed_s
from moesim.cost.serving.memory import ffn_weights, stage_cache_bytes, stage_weights
from moesim.cost.serving.ping_pong import (
    away_share,
    ffn_side,
    ping_pong_times,
    turns_s,
    way_s,
)
from moesim.cost.serving.table import HostTime
from moesim.model.architecture import MoeFfn
from tests.unit.cost.serving.deployments import deployment

FP8 = Formats(attention="fp8_block128", dense="fp8_block128", experts="fp8_block128")


def _apart(micro_batches: int = 3, tp: int = 1, dp: int = 4, ffn: int = 4) -> Deployment:
    cut = Cut(tp=tp, dp=dp, ep=ffn, ffn=ffn, micro_batches=micro_batches)
    on = deployment("deepseek-v2-lite", cut)
    whole = deployment("deepseek-v2-lite", Cut(tp=tp * dp + ffn)).networks["tp"]
    return replace(on, networks={**on.networks, "ep": whole})


def _walked(stages: list[float], layers: int, micro_batches: int) -> float:
    """Walk each micro-batch through each stage of each layer, first come first served."""
    free, ready = [0.0] * 4, [0.0] * micro_batches
    for _ in range(layers):
        for one in range(micro_batches):
            for stage, took in enumerate(stages):
                ready[one] = free[stage] = max(free[stage], ready[one]) + took
    return max(ready)


def test_turns_are_what_a_walk_gives() -> None:
    draw = random.Random(0)
    for _ in range(300):
        stages = [draw.random() for _ in range(4)]
        layers, micro_batches = draw.randint(1, 8), draw.randint(1, 6)
        found = turns_s([(stages, layers)], micro_batches)
        assert found == pytest.approx(_walked(stages, layers, micro_batches))


@pytest.mark.parametrize(("micro_batches", "layer"), [(1, 3.0), (2, 3.0), (3, 3.0), (4, 4.0)])
def test_three_micro_batches_hide_a_way_as_long_as_a_network(
    micro_batches: int, layer: float
) -> None:
    """Attention 1, network 1, each way 1/2: both sides are busy a third, two thirds, all of it."""
    stages = (1.0, 0.5, 1.0, 0.5)
    more = turns_s([(stages, 50)], micro_batches) - turns_s([(stages, 40)], micro_batches)
    assert more == pytest.approx(10 * layer)


def test_each_side_holds_its_own_and_together_they_hold_the_model() -> None:
    on = deployment("deepseek-v3", Cut(dp=4, ep=8, ffn=8), FP8)
    own, other = stage_weights(on)[0], ffn_weights(on)
    assert own.experts == other.attention == other.embeddings == 0
    # 58 layers of 256 / 8 experts of three products of 7168 x 2048, a byte each
    assert other.experts == pytest.approx(58 * 32 * 3 * 7168 * 2048, rel=0.01)
    # 58 shared experts and three dense networks of 18432
    assert other.dense == pytest.approx(3 * 7168 * (58 * 2048 + 3 * 18432), rel=0.01)
    alone = stage_weights(deployment("deepseek-v3", Cut(), FP8))[0]
    assert own.total + 8 * other.experts + other.dense == pytest.approx(alone.total)
    assert stage_cache_bytes(on) == [61 * 2 * 576]


@pytest.mark.parametrize(("tp", "dp", "ffn", "domain", "share"), [
    (1, 4, 4, 8, 0.0), (1, 8, 8, 8, 1.0), (2, 4, 8, 8, 1.0), (1, 4, 12, 8, 8 / 12),
    (1, 12, 4, 8, 8 / 12),
])  # fmt: skip
def test_pairs_in_one_domain_do_not_cross_the_network(
    tp: int, dp: int, ffn: int, domain: int, share: float
) -> None:
    assert away_share(Cut(tp=tp, dp=dp, ffn=ffn), domain) == pytest.approx(share)


def test_the_busier_end_of_a_way_sets_its_time() -> None:
    """8192 tokens of each of four groups, 2048 values of a byte: 16.8 MB at four of either kind."""
    tokens = np.array([8192.0])
    even, few = (float(way_s(tokens, 1.0, _apart(ffn=count))[0]) for count in (4, 2))
    link = 450e9
    assert 8192 * 2048 / link < even < 3 * 8192 * 2048 / link
    assert 1.5 * even < few < 2.1 * even


def test_a_step_is_no_quicker_than_either_side() -> None:
    for micro_batches in (1, 2, 3):
        on = _apart(micro_batches)
        times = ping_pong_times(on, HostTime())
        step = step_ps(times.lines(64), 64 * 2000) / 1e12
        ffn = on.architecture.decoder[-1].layer
        assert isinstance(ffn.ffn, MoeFfn)
        micro = np.array([64.0 / micro_batches])
        # a rank's tokens stand for those of all where the engine asks for one rank alone
        experts = float(routed_s(ffn, micro, ffn_side(on))[0]) * 26 * micro_batches
        attention = step_ps(times.attention(64), 64 * 2000) / 1e12
        assert step > 0.95 * experts
        assert step > attention >= 0.0


def test_micro_batches_pay_where_batches_are_large() -> None:
    """Of 512 sequences of 4,000 tokens two halves take less; a single one is not cut."""
    one, two, three = (ping_pong_times(_apart(count), HostTime()) for count in (1, 2, 3))
    large = [step_ps(times.lines(512), 512 * 4000) for times in (one, two, three)]
    assert large[1] < 0.95 * large[0]
    assert large[2] < large[0]
    small = [step_ps(times.lines(1), 1000) for times in (one, two)]
    assert small[0] == small[1]
