"""How fast drops are drawn. Run by hand: pytest -m slow -p benchmark, with this file."""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moesim.moe.drop_draws import Routing, drop_estimate
from moesim.moe.loads import LoadLaw

LIMIT_S = 5.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "experts", "top_k"),
    [("uniform", 64, 6), ("uniform", 256, 8), ("dirichlet", 128, 1), ("lognormal", 256, 8)],
)
def test_ten_thousand_routing_draws(
    benchmark: BenchmarkFixture, law: str, experts: int, top_k: int
) -> None:
    cv = 0.0 if law == "uniform" else 1.0
    routing = Routing(tokens=4096, experts=experts, top_k=top_k, law=LoadLaw(law=law, cv=cv))
    slots = 4096 * top_k // experts

    def draw() -> float:
        return drop_estimate(routing, slots, 10_000, np.random.default_rng(1)).mean

    assert 0 < benchmark(draw) < 1
    assert benchmark.stats is not None
    assert benchmark.stats.stats.max < LIMIT_S
