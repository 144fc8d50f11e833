"""parallel.rank_order: where groups lie, and what cannot be numbered so."""

import pytest

from moesim.cost.layout import networks
from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.resolve import Training, resolve


def training(*settings: str) -> Training:
    return resolve(load_scenario("llama-3.1-70b-256xh100", settings))


def test_pipelines_of_mapped_ranks_stay_in_a_node() -> None:
    """tp 2, pp 4 on nodes of 8: with pp before dp, stages are 2 apart and share a node."""
    cut = "parallel={tp: 2, pp: 4}"
    usual, mapped = (
        networks(run.layout, run.cluster.topology, run.software)
        for run in (training(cut), training(cut, "parallel.rank_order=tp-cp-ep-pp-dp"))
    )
    assert (usual["pp"].domains, mapped["pp"].domains) == (4, 1)
    assert (usual["dp"].members, mapped["dp"].members) == (4, 1)


@pytest.mark.parametrize("order", ["tp-cp-dp-pp", "tp-cp-ep-dp-dp", "pp", ""])
def test_an_order_names_every_dimension_once(order: str) -> None:
    with pytest.raises(ScenarioError, match="must name tp, cp, ep, dp and pp once each"):
        training(f"parallel.rank_order='{order}'")


def test_stages_of_experts_must_be_those_of_dense_layers() -> None:
    run = ("model=mixtral-8x7b", "parallel.rank_order=tp-cp-ep-pp-dp")
    with pytest.raises(ScenarioError, match="neighbour is 1 ranks away for dense layers and 8"):
        training(*run, "parallel={tp: 1, pp: 4, ep: 8}")
    assert training(*run, "parallel={tp: 8, pp: 4, ep: 8, etp: 1}").layout.edp == 8


@pytest.mark.parametrize("dispatcher", ["deepep", "hybridep"])
def test_a_torus_has_no_kernels_over_nvlink(dispatcher: str) -> None:
    with pytest.raises(ScenarioError, match="on the torus of tpu-v6e-pod take alltoall"):
        resolve(load_scenario("mixtral-8x22b-256xv6e", [f"parallel.dispatcher={dispatcher}"]))
