"""Whether ranks can be numbered as the scenario says."""

from moesim.cost.layout import Layout, degrees
from moesim.hardware.rank_order import strides
from moesim.spec.scenario import Scenario


def check_order(scenario: Scenario, layout: Layout, key: str) -> None:
    """Raise ScenarioError where the stages of dense layers and of experts are other ranks.

    Megatron-LM asks for the same: with pp not last, dp must equal the experts' own.
    """
    found = degrees(layout)
    dense, experts = (
        strides(sizes, layout.rank_order)["pp"] for sizes in (found.dense, found.experts)
    )
    if layout.pp > 1 and dense != experts:
        raise scenario.error(
            f"{key}.rank_order",
            f"with {layout.rank_order} a stage's neighbour is {dense} ranks away for dense layers "
            f"and {experts} for experts; put pp last, or make tp * cp = {layout.tp * layout.cp} "
            f"and etp * ep = {layout.etp * layout.ep} equal",
        )
