"""How fast drops are drawn. Run by hand: pytest -m slow -p benchmark, with this file."""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moesim.moe.assignment import Router
from moesim.moe.capacity import CapacityRule
from moesim.moe.expected_drops import draw_groups, monte_carlo
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
    router = Router(
        tokens=4096, group_tokens=4096, experts=experts, top_k=top_k, ranks=8,
        law=LoadLaw(law=law, cv=0.0 if law == "uniform" else 1.0), capacity=CapacityRule(),
    )  # fmt: skip

    def draw() -> float:
        generator = np.random.default_rng(1)
        counts = draw_groups(router, 4096, 10_000, generator)
        return monte_carlo(router, (counts, generator)).mean

    assert 0 < benchmark(draw) < 1
    assert benchmark.stats is not None
    assert benchmark.stats.stats.max < LIMIT_S
