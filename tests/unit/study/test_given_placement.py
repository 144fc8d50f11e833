"""Ranks placed as a scenario gives them: what it costs, what is said, what cannot be."""

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.report.words import layout_words
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate

SETTINGS = ("cluster.devices=16", "parallel={tp: 2, pp: 1, vpp: 1, ep: 8, etp: 1}", "baseline=[]")


def _step_s(placement: str) -> float:
    given_ = (*SETTINGS, f"parallel.placement={placement}")
    return simulate(resolve(load_scenario("mixtral-8x7b-64xh100", given_))).metrics.step_s


def test_tensor_parallel_ranks_on_two_nodes_cost_time() -> None:
    plain = simulate(resolve(load_scenario("mixtral-8x7b-64xh100", SETTINGS))).metrics.step_s
    assert _step_s(str(list(range(16)))) == plain
    across = [8 * (rank % 2) + rank // 2 for rank in range(16)]
    assert _step_s(str(across)) > 1.1 * plain


def test_a_report_says_that_ranks_are_placed() -> None:
    given_ = (*SETTINGS, "parallel.placement=[1, 0]")
    outcome = simulate(resolve(load_scenario("mixtral-8x7b-64xh100", given_)))
    assert layout_words(outcome).endswith("ranks placed as given")


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ("[0, 0]", "must name each device from 0 to 1 once"),
        ("[0]", "must list two devices or more"),
        ("[1, 2]", "must name each device from 0 to 1 once"),
        ("[2, 0, 1]", "places 3 ranks, which must divide the 16 devices"),
    ],
)
def test_placements_that_cannot_be(placement: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        _step_s(placement)
