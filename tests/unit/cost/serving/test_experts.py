"""Who is touched by a batch, and which rank is fullest."""

import numpy as np
import pytest

from moesim.cost.serving.deployment import Cut
from moesim.cost.serving.experts import binomial_quantiles, experts_s, fullest_rows
from moesim.model.architecture import MoeFfn
from moesim.moe import touched
from moesim.moe.loads import LoadLaw
from tests.unit.cost.serving.deployments import deployment

FFN = MoeFfn(num_experts=64, top_k=8, expert_width=1024)


def test_quantiles_of_binomial_laws_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    places = (np.arange(200) + 0.5) / 200
    for tokens, share in ((1, 0.1), (8, 0.03), (100, 0.125), (300, 0.06), (7, 1.0)):
        found = binomial_quantiles(tokens, np.full(200, share), places)
        assert list(found) == list(stats.binom.ppf(places, tokens, share))
    # the normal law stands in where many are expected: off by a row at most
    found = binomial_quantiles(5000, np.full(200, 0.1), places)
    assert np.abs(found - stats.binom.ppf(places, 5000, 0.1)).max() <= 1.0


@pytest.mark.parametrize("tokens", [1, 4, 16, 64, 512])
def test_touched_experts_of_uniform_choice(tokens: int) -> None:
    """E (1 - (1 - k/E)^B), rounded by the quantiles to about one expert."""
    on = deployment("olmoe-1b-7b", Cut())
    rows = fullest_rows(tokens, FFN, on)
    expected = touched.uniform(tokens, 64, 8)
    assert (rows > 0).sum() == pytest.approx(expected, abs=1.0)
    assert rows.sum() == pytest.approx(tokens * 8, rel=0.02, abs=4)


def test_uneven_shares_touch_fewer_and_fill_a_rank_more() -> None:
    even = deployment("olmoe-1b-7b", Cut(tp=8, ep=8))
    skewed = deployment("olmoe-1b-7b", Cut(tp=8, ep=8), load=LoadLaw(law="dirichlet", cv=0.8))
    # a rank's eight shares spread by 0.8 / sqrt(8); the largest of eight normal draws lies 1.42
    # deviations up (Harter 1961), 1.40 of the mean
    assert fullest_rows(65536, FFN, skewed).sum() == pytest.approx(1.40 * 65536, rel=0.1)
    assert fullest_rows(65536, FFN, even).sum() == pytest.approx(65536, rel=0.01)
    whole = deployment("olmoe-1b-7b", Cut(), load=LoadLaw(law="dirichlet", cv=0.8))
    one = deployment("olmoe-1b-7b", Cut())
    assert (fullest_rows(8, FFN, whole) > 0).sum() < (fullest_rows(8, FFN, one) > 0).sum()


def test_a_rank_has_its_experts_and_at_least_the_mean() -> None:
    on = deployment("olmoe-1b-7b", Cut(tp=8, ep=8), load=LoadLaw(law="dirichlet", cv=0.5))
    rows = fullest_rows(1024, FFN, on)
    assert len(rows) == 8
    assert rows.sum() >= 1024 * 8 / 8


def test_copies_of_busy_experts_level_the_ranks() -> None:
    """64 experts and 16 copies on eight ranks: an eighth of the rows each, to a few per cent."""
    load = LoadLaw(law="dirichlet", cv=0.5)
    plain = deployment("olmoe-1b-7b", Cut(tp=8, ep=8), load=load)
    copied = deployment("olmoe-1b-7b", Cut(tp=8, ep=8, redundant_experts=16), load=load)
    mean = 1024 * 8 / 8
    assert fullest_rows(1024, FFN, plain).sum() > 1.1 * mean
    assert fullest_rows(1024, FFN, copied).sum() == pytest.approx(mean, rel=0.1)


def test_time_never_falls_with_tokens_and_never_beats_the_memory() -> None:
    on = deployment("qwen3-30b-a3b", Cut())
    (layer,) = {run.layer for run in on.architecture.decoder}
    ffn = layer.ffn
    assert isinstance(ffn, MoeFfn)
    tokens = np.array([1.0, 8.0, 64.0, 512.0, 4096.0])
    seconds = experts_s(tokens, ffn, on)
    assert (np.diff(seconds) > 0).all()
    # three matrices of 2,048 x 768 in bf16 for each touched expert
    active = touched.uniform(8, 128, 8)
    bound_s = 0.95 * active * 3 * 2048 * 768 * 2 / on.chip.memory_bandwidth_bytes_per_s
    assert seconds[1] > bound_s
