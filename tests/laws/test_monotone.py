"""Law 9: better hardware never makes a step slower; more skew never makes an exchange faster."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesim.cost.pricing import machine, price
from moesim.model.operators import Exchange
from moesim.moe.assignment import Router, assign
from moesim.moe.dispatchers import DISPATCHERS
from moesim.moe.loads import LoadLaw
from moesim.study.resolve import Training
from moesim.study.simulate import simulate
from tests.laws.small_runs import (
    random_outcomes,
    resolved,
    with_device,
    with_network,
    with_peak,
)


def test_better_hardware_never_makes_a_step_slower(tmp_path: Path) -> None:
    for made in random_outcomes(tmp_path, 25, seed=9):
        run = made.run
        device = run.cluster.device
        before_s = made.metrics.step_s * (1 + 1e-12)
        for times in (1.1, 3.0):
            faster = {
                "flop": with_peak(run, times),
                "memory": with_device(
                    run, memory_bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s * times
                ),
                "scale-up": with_network(run, up=times),
                "scale-out": with_network(run, out=times),
            }
            for what, better in faster.items():
                assert simulate(better).metrics.step_s <= before_s, (what, times)


def test_more_memory_changes_only_whether_it_fits(tmp_path: Path) -> None:
    run = resolved(tmp_path)
    small = simulate(with_device(run, memory_capacity_bytes=2**30))
    large = simulate(with_device(run, memory_capacity_bytes=2**40))
    assert not small.fits
    assert large.fits
    assert small.metrics.step_s == large.metrics.step_s
    assert small.peak_bytes == large.peak_bytes


@pytest.mark.parametrize("dispatcher", sorted(DISPATCHERS))
@pytest.mark.parametrize("ep", [2, 8, 16])
def test_more_skew_never_makes_an_exchange_faster(tmp_path: Path, dispatcher: str, ep: int) -> None:
    run = resolved(
        tmp_path, {"parallel": {"ep": ep, "dispatcher": dispatcher}}, {"moe": {"num_experts": 16}}
    )
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    exchange = Exchange(
        name="dispatch", module="moe", tokens=1024, hidden=512, top_k=2, num_experts=16,
        copies=2.0, dtype="bf16", backward_dtype="bf16",
    )  # fmt: skip
    seconds = [price(exchange, on, skew).seconds for skew in (1.0, 1.01, 1.5, 4.0, 16.0)]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


@pytest.mark.parametrize("dispatcher", sorted(DISPATCHERS))
def test_a_narrower_dispatch_never_makes_a_step_slower(tmp_path: Path, dispatcher: str) -> None:
    parallel = {"dispatcher": dispatcher}
    wide = simulate(resolved(tmp_path, {"parallel": parallel}))
    narrow = simulate(resolved(tmp_path, {"parallel": {**parallel, "dispatch_dtype": "fp8"}}))
    assert narrow.metrics.step_s < wide.metrics.step_s


def test_a_gather_of_all_tokens_does_not_depend_on_their_choices(tmp_path: Path) -> None:
    run = resolved(tmp_path, {"parallel": {"dispatcher": "allgather"}})
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    exchange = Exchange(
        name="dispatch", module="moe", tokens=1024, hidden=512, top_k=2, num_experts=8,
        copies=2.0, dtype="bf16", backward_dtype="bf16",
    )  # fmt: skip
    assert price(exchange, on, 3.0).seconds == price(exchange, on, 1.0).seconds


def test_more_skewed_loads_are_slower_in_the_mean(tmp_path: Path) -> None:
    """Ten steps each: no step with uniform loads is above the mean with strongly skewed ones."""
    means = []
    for cv in (0.0, 0.3, 1.0, 2.0):
        load = {"law": "dirichlet", "cv": cv}
        changes = {"training": {"steps": 10}, "routing": {"load": load}}
        means.append(_mean_step_s(resolved(tmp_path, changes)))
    assert means == sorted(means)


def _mean_step_s(run: Training) -> float:
    return simulate(run).metrics.step_s


def test_popular_experts_are_popular_with_all_ranks() -> None:
    """The imbalance of expert shares does not depend on how many ranks bring the tokens.

    Shares of 64 experts with a coefficient of variation of 1 are exponential; their fullest is
    H(64) = 4.74 times the mean (harmonic number), whoever routes the 65,536 tokens.
    """
    for groups in (1, 16):
        router = Router(
            tokens=65536, group_tokens=65536 // groups, experts=64, top_k=1, ranks=1,
            law=LoadLaw(law="dirichlet", cv=(63 / 65) ** 0.5),
        )  # fmt: skip
        generator = np.random.default_rng(0)
        drawn = [assign(router, generator).expert_imbalance for _ in range(200)]
        sampling = 3 * float(np.std(drawn)) / len(drawn) ** 0.5
        assert abs(float(np.mean(drawn)) - 4.74) < sampling, groups


def test_a_wider_exchange_at_equal_load_is_the_same_law(tmp_path: Path) -> None:
    """Twice the tokens never travel faster."""
    run = resolved(tmp_path)
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    exchange = Exchange(
        name="dispatch", module="moe", tokens=512, hidden=512, top_k=2, num_experts=8,
        copies=2.0, dtype="bf16", backward_dtype="bf16",
    )  # fmt: skip
    seconds = [price(replace(exchange, tokens=n), on).seconds for n in (1, 64, 512, 4096)]
    assert seconds == sorted(seconds)
