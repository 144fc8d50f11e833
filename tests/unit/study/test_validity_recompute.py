"""A module that is to be computed again must be there."""

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.resolve import resolve


@pytest.mark.parametrize(
    ("name", "modules", "lacks"),
    [
        ("mixtral-8x7b-64xh100", "[mla_up_proj, layernorm]", "no mla_up_proj:"),
        ("mixtral-8x7b-64xh100", "[shared_experts]", "no shared_experts:"),
        ("llama-3.1-70b-256xh100", "[moe, moe_act]", "no moe and no moe_act:"),
    ],
)
def test_what_a_model_lacks_is_told(name: str, modules: str, lacks: str) -> None:
    with pytest.raises(ScenarioError, match=lacks):
        resolve(load_scenario(name, [f"training.recompute={modules}"]))


def test_baselines_take_the_list_whatever_they_have() -> None:
    """Dense twins of the shipped scenario have no experts, and moe_act is in its list."""
    assert resolve(load_scenario("mixtral-8x7b-64xh100")).job.recompute == ("moe_act",)
    assert resolve(load_scenario("deepseek-v3-2048xh800")).job.recompute
