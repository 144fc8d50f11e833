"""Published drop rates and what capacity costs: Switch's one per cent, ST-MoE's step time."""

import pytest

from moesim.model.architecture import Architecture
from moesim.model.flop import whole_layer
from moesim.model.named import load_named
from moesim.model.operators import flop
from moesim.model.shapes import Shape
from moesim.moe import drops
from moesim.moe.capacity import CapacityRule, slots


@pytest.mark.parametrize(
    ("tokens", "experts", "share", "expected"),
    [  # top-1, slots = ceil(tokens * share / experts); eight decimals of the exact sum
        (4096, 8, 1.0, 0.01648949), (1024, 64, 1.25, 0.02241517), (4096, 128, 1.25, 0.00715518),
        (1024, 128, 2.0, 0.00076016), (16384, 2048, 1.5, 0.01621058), (2**20, 256, 1.0, 0.00622116),
    ],
)  # fmt: skip
def test_corners_of_the_uniform_table(
    tokens: int, experts: int, share: float, expected: float
) -> None:
    found = drops.uniform(tokens, experts, 1, -int(-tokens * share // experts))
    assert abs(found - expected) < 5.1e-9


@pytest.mark.parametrize(
    ("experts", "concentration", "share", "expected"),
    [  # 65,536 tokens, top-1
        (8, 0.5, 1.0, 0.451364), (64, 2.0, 1.25, 0.182421), (128, 20.0, 1.5, 0.002658),
        (256, 1.0, 4.0, 0.017887), (256, 100.0, 1.0, 0.04691),
    ],
)  # fmt: skip
def test_corners_of_the_dirichlet_table(
    experts: int, concentration: float, share: float, expected: float
) -> None:
    found = drops.dirichlet(65_536, experts, 1, int(65_536 * share / experts), concentration)
    assert abs(found - expected) < 5.1e-7


@pytest.mark.parametrize("experts", [8, 16, 32, 64, 128, 256])
def test_switch_drops_less_than_one_per_cent_whatever_the_experts(experts: int) -> None:
    """Switch, sec. 2.2: "typically < 1 %" with alpha 1e-2, whatever the number of experts.

    Band: below 1 % in the released Base configurations (groups of 8,192, factor 1.25) with an even
    router, and up to 128 experts with the CV of 0.05 that Shazeer's losses leave.
    """
    rule = CapacityRule(formula="flaxformer", factor=1.25)
    capacity = slots(rule, 8192, experts, 1)
    assert drops.uniform(8192, experts, 1, capacity) < 0.01
    if experts <= 128:
        concentration = drops.concentration_for(experts, 0.05)
        assert drops.dirichlet(8192, experts, 1, capacity, concentration) < 0.01


def _forward_flop(model: Architecture, capacity_factor: float) -> float:
    """Return the forward FLOP of the layers with every slot computed; k is not in the factor."""
    total = 0.0
    for stack in (model.encoder, model.decoder):
        shape = Shape(sequences=1, length=512, memory_length=512)
        for run in stack:
            layer = whole_layer(run.layer, model.hidden, shape, computed=capacity_factor / 2)
            total += run.count * sum(flop(op) for op in layer)
    return total


def test_step_time_of_st_moe_at_more_capacity() -> None:
    """ST-MoE, Table 9: 4.244 s at a train factor of 1.25, 4.819 s at 2.0 (32B): +13.5 %.

    Band: the FLOP of the padded slots alone, +8 % to +14 %: the all-to-all grows by 60 % too, but
    what it takes of the step is not known.
    """
    model = load_named("st-moe-32b")
    found = _forward_flop(model, 2.0) / _forward_flop(model, 1.25) - 1
    printed = 4.819 / 4.244 - 1
    assert printed == pytest.approx(0.135, abs=5e-4)
    assert 0.08 < found <= printed
    # ST-MoE-L: the paper says +7 %, its own seconds +2.1 %
    assert pytest.approx(0.021, abs=5e-4) == 2.447 / 2.397 - 1
