"""Distinct experts that a batch touches, against closed forms, draws and real routing."""

import numpy as np
import pytest

from moesim.moe import touched, trace_statistics
from moesim.moe.counts import Batch, draw, inclusion
from moesim.moe.traces import counts_of, read_npz
from tests.shared_files import shared

TRACE = "expert-loads/deepseek_v2_lite_esft_routing_trace.npz"


def test_uniform_choice_touches_what_the_closed_form_says() -> None:
    # 4 experts, k = 1, 2 tokens: 4 (1 - (3/4)^2) = 7/4
    assert touched.uniform(2, 4, 1) == pytest.approx(1.75)
    assert touched.uniform(1, 64, 6) == pytest.approx(6)
    assert touched.uniform(3, 4, 4) == 4
    # published: E = 64, k = 6 at B = 4, 16, 64
    for tokens, experts in ((4, 20.8), (16, 50.8), (64, 63.9)):
        assert touched.uniform(tokens, 64, 6) == pytest.approx(experts, abs=0.05)


def test_skew_touches_fewer_and_bursts_fewer_still() -> None:
    p = inclusion(np.exp(np.random.default_rng(0).standard_normal((3, 64))), 6)
    alone, alike = touched.independent(p, 16), touched.bursty(p, 16, 2.0)
    assert (alone < touched.uniform(16, 64, 6)).all()
    assert (alike < alone).all()
    assert touched.bursty(p, 16, 0.5) == pytest.approx(alone)


def test_beta_binomial_by_hand() -> None:
    """Even shares, E = 2, k = 1, design 16/1.5 at 16 tokens: A = (16 - d) / (d - 1).

    A Beta(A/2, A/2) leaves all 16 aside with probability prod (A/2 + i) / (A + i), i < 16.
    """
    for phi in (2.0, 16 / 1.5):
        a = (16 - phi) / (phi - 1)
        untouched = np.prod([(a / 2 + i) / (a + i) for i in range(16)])
        found = touched.bursty(np.array([[0.5, 0.5]]), 16, phi)
        assert found == pytest.approx([2 * (1 - untouched)])


@pytest.mark.parametrize("phi", [None, 1.71])
@pytest.mark.parametrize("tokens", [2, 16, 64])
def test_draws_touch_what_is_expected(phi: float | None, tokens: int) -> None:
    """Mean of 3000 draws within 4 sigma."""
    p = inclusion(np.exp(0.9 * np.random.default_rng(3).standard_normal(64)), 6)
    batch = Batch(tokens=tokens, top_k=6, phi=phi)
    counts = draw(np.tile(p, (3000, 1)), batch, [np.random.default_rng(4)] * 3000)
    seen = (counts > 0).sum(axis=1)
    closed = touched.independent(p, tokens) if phi is None else touched.bursty(p, tokens, phi)
    assert abs(float(seen.mean()) - float(closed)) < 4 * float(seen.std()) / 3000**0.5


def test_real_routing_touches_what_the_closed_forms_say() -> None:
    """Means over layers and tasks of published windows of B tokens, E = 64 and k = 6.

    Independent tokens of one task and of the equal mix within 2 %; B tokens in order, whose burst
    factor comes from windows of the trace, within 5 % (the law has one constant for all sizes).
    """
    traces = read_npz(shared(TRACE), 64)
    p = {name: inclusion(counts_of(t).astype(np.float64), 6) for name, t in traces.items()}
    mix = np.mean(list(p.values()), axis=0)
    for tokens, one_task, mixed in ((4, 19.3, 20.0), (16, 42.8, 47.3), (64, 59.8, 62.7)):
        alone = np.mean([touched.independent(rows, tokens) for rows in p.values()])
        assert float(alone) == pytest.approx(one_task, rel=0.02)
        assert float(touched.independent(mix, tokens).mean()) == pytest.approx(mixed, rel=0.02)
        in_order = np.mean(
            [touched.bursty(p[n], tokens, trace_statistics.phi(t)) for n, t in traces.items()]
        )
        seen = np.mean([trace_statistics.touched(t, tokens) for t in traces.values()])
        assert float(in_order) == pytest.approx(float(seen), rel=0.05)
