"""Times between two exact knots, by hand."""

import numpy as np
import pytest

from moesim.cost.times import Part, PassCost, StageCost
from moesim.cost.varied import VariedCost, between, mean_cost, pair_s


def _pass(compute_s: float, dispatch_s: float) -> PassCost:
    parts = (Part("compute", "experts", compute_s), Part("scale-up", "dispatch", dispatch_s))
    return PassCost(parts, compute_s + dispatch_s, 1)


def _stage(forward: PassCost, backward: PassCost, pair_s: float) -> StageCost:
    joint = PassCost((Part("compute", "experts", pair_s),), pair_s, 2)
    return StageCost(
        forward=(forward,), backward=(backward,), joint=((joint,),), send_s=0.0, reduce_s=0.0,
        gather_s=0.0, update_s=0.0,
    )  # fmt: skip


COST = VariedCost(
    low=_stage(_pass(1, 1), _pass(2, 2), 4.0),
    high=_stage(_pass(3, 2), _pass(6, 4), 10.0),
    crossed={(0, 0): (6.0, 7.0)},
    heights=(np.array([0.0, 0.5, 1.0]),),
)


def test_pairs_are_exact_at_the_four_corners() -> None:
    corners = {(0, 0): 4.0, (1, 0): 6.0, (0, 1): 7.0, (1, 1): 10.0}
    for (u, v), seconds in corners.items():
        assert pair_s(COST, (0, 0), u, v) == seconds


def test_pairs_are_bilinear_in_between() -> None:
    """The mean of the four corners in the middle; half of two of them on an edge."""
    assert pair_s(COST, (0, 0), 0.5, 0.5) == pytest.approx((4 + 6 + 7 + 10) / 4)
    assert pair_s(COST, (0, 0), 0.5, 0.0) == pytest.approx(5.0)


def test_equal_knots_stay_as_they_are_to_the_last_bit() -> None:
    assert between(0.1, 0.1, 0.3) == 0.1


def test_the_mean_cost_is_that_of_its_parts() -> None:
    """u is 0.5 in the mean: experts between 1 and 3 s, dispatch between 1 and 2 s."""
    forward = mean_cost(COST).forward[0]
    assert [part.seconds for part in forward.parts] == [2.0, 1.5]
    assert forward.seconds == 3.5
    assert mean_cost(COST).backward[0].seconds == 7.0
    assert mean_cost(COST).joint[0][0].seconds == 7.0
