"""Collectives and exchanges as samples of curves: bytes, ranks, domains, and who lends."""

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from moesim.cost.collectives import Network
from moesim.cost.curves import Curve
from moesim.cost.families import collectives, exchange
from moesim.cost.fitted import Kernels, kernels_for
from moesim.cost.fitted_transfers import collective, forwarded, gathered
from moesim.cost.times import Known
from moesim.hardware.device import device
from moesim.hardware.profiles import load_accelerator
from moesim.model.backward import backward
from moesim.model.operators import CollectiveKind, Exchange

FAMILIES = {family.name: family for family in collectives.FAMILIES}


@pytest.fixture(scope="module")
def h100() -> Kernels:
    libraries = {"collectives": ("nccl",), "exchange": ("deepep",)}
    return kernels_for(device(load_accelerator("h100-sxm")), 4.5e11, libraries)


def network(domains: int, members: int, **changes: Any) -> Network:
    plain = Network(
        size=domains * members, domains=domains, members=members, kind="switch",
        fabric_bytes_per_s=5e10 if domains > 1 else 0.0, scale_up_bytes_per_s=3e11,
        scale_out_bytes_per_s=4e10, scale_up_latency_s=1e-6, scale_out_latency_s=5e-6,
        fabric="infiniband" if domains > 1 else "",
    )  # fmt: skip
    return replace(plain, **changes)


def dispatch(**changes: Any) -> Exchange:
    plain = Exchange(
        name="dispatch", module="moe", tokens=4096, hidden=7168, top_k=8, num_experts=256,
        copies=8.0, dtype="fp8", backward_dtype="bf16",
    )  # fmt: skip
    return replace(plain, **changes)


def columns(**values: float) -> dict[str, Any]:
    return {name: np.array([float(value)]) for name, value in values.items()}


def asked(kind: CollectiveKind, size: float, net: Network, kernels: Kernels) -> Known:
    found = collective(kind, size, net, kernels)
    assert found is not None
    return found


def curve(kernels: Kernels, family: str, role: str = "", dtype: str = "bf16") -> Curve:
    found = kernels.first(dtype, (family, role))
    assert found is not None
    return found.curve


NAMES: dict[CollectiveKind, str] = {
    "all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter",
    "all_to_all": "alltoall",
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_a_collective_is_a_sample_of_its_curve(h100: Kernels, kind: CollectiveKind) -> None:
    family = FAMILIES[NAMES[kind]]
    samples = columns(bytes=3e7, ranks=8)
    expected = collectives.seconds(family, curve(h100, family.name), samples, h100.chip)[0]
    found = asked(kind, 3e7, network(1, 8), h100)
    assert found.seconds == pytest.approx(expected)
    assert (found.tag, found.origin) == ("fitted", "h100-sxm--nccl")


def test_between_domains_the_network_counts(h100: Kernels) -> None:
    family = FAMILIES["all_reduce_across"]
    samples = columns(bytes=1e9, ranks=16, domains=2, network_bytes_per_s=5e10)
    mine = curve(h100, family.name, "infiniband")
    expected = collectives.seconds(family, mine, samples, h100.chip)[0]
    assert asked("all_reduce", 1e9, network(2, 8), h100).seconds == pytest.approx(expected)
    slower = network(2, 8, fabric_bytes_per_s=2.5e10)
    assert asked("all_reduce", 1e9, slower, h100).seconds > 1.3 * expected


@pytest.mark.parametrize("fabric", ["infiniband", "efa"])
def test_each_fabric_has_its_own_curve(h100: Kernels, fabric: str) -> None:
    family = FAMILIES["all_reduce_across"]
    mine = curve(h100, family.name, fabric)
    assert mine.variant == fabric
    samples = columns(bytes=1e6, ranks=16, domains=2, network_bytes_per_s=5e10)
    expected = collectives.seconds(family, mine, samples, h100.chip)[0]
    found = asked("all_reduce", 1e6, network(2, 8, fabric=fabric), h100)
    assert found.seconds == pytest.approx(expected)


@pytest.mark.parametrize("fabric", ["roce", "slingshot", "ethernet", ""])
def test_no_curve_stands_for_a_fabric_that_was_not_measured(h100: Kernels, fabric: str) -> None:
    net = network(2, 8, fabric=fabric)
    kinds: tuple[CollectiveKind, ...] = get_args(CollectiveKind)
    assert [collective(kind, 1e8, net, h100) for kind in kinds] == [None] * len(kinds)
    assert forwarded(dispatch(), 7392.0, net, h100, skew=1.0) is None


def test_deepep_over_efa_is_not_deepep_over_infiniband(h100: Kernels) -> None:
    there, here = (
        forwarded(dispatch(), 7392.0, network(4, 8, fabric=fabric), h100, skew=1.0)
        for fabric in ("efa", "infiniband")
    )
    assert there is not None
    assert here is not None
    assert there.seconds > here.seconds


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
def test_between_domains_a_half_of_an_all_reduce(h100: Kernels, kind: CollectiveKind) -> None:
    """A ring all-reduce is a reduce-scatter and an all-gather; inside, the domain's own curve."""
    whole = asked("all_reduce", 1e9, network(4, 8), h100)
    inside = asked(kind, 1e9, network(1, 8), h100)
    found = asked(kind, 1e9, network(4, 8), h100)
    assert found.seconds == max(whole.seconds / 2, inside.seconds)
    assert found.tag == "transferred"
    assert found.uncertainty == pytest.approx(math.hypot(whole.uncertainty, 1.48 * 0.30))
    alone = asked(kind, 1e9, network(4, 1), h100)
    assert alone.seconds == asked("all_reduce", 1e9, network(4, 1), h100).seconds / 2


def test_a_send_is_half_of_an_all_to_all_of_two(h100: Kernels) -> None:
    """Each of two ranks keeps half of what it puts in: 20 MB put in are 10 MB sent."""
    pair = asked("all_to_all", 2e7, network(2, 1), h100)
    found = asked("send", 1e7, network(4, 8), h100)
    assert found.seconds == pair.seconds >= 1e7 / 5e10
    assert (found.tag, found.origin) == ("transferred", pair.origin)
    assert found.uncertainty > pair.uncertainty
    near = asked("send", 1e7, network(1, 8), h100)
    assert (near.tag, near.origin) == ("fitted", "h100-sxm--nccl")


@pytest.mark.parametrize(
    ("domains", "members", "share"), [(1, 8, 8 / 7), (4, 1, 4 / 3), (4, 8, 4 / 3)]
)
def test_a_broadcast_is_a_gather_of_as_many_bytes_per_link(
    h100: Kernels, domains: int, members: int, share: float
) -> None:
    net = network(domains, members)
    gather = asked("all_gather", 1e9 * share, net, h100)
    found = asked("broadcast", 1e9, net, h100)
    assert found.seconds == pytest.approx(gather.seconds)
    assert found.tag == "transferred"
    assert found.seconds >= 1e9 / (4.5e11 if members > 1 else 5e10)


def test_nothing_to_send_costs_nothing(h100: Kernels) -> None:
    assert asked("all_reduce", 0.0, network(1, 8), h100).seconds == 0.0
    assert asked("all_reduce", 1e9, network(1, 1), h100).seconds == 0.0


@pytest.mark.parametrize("changes", [{"kind": "mesh"}, {"kind": "pcie"}, {"on_torus": True}])
def test_curves_of_a_switch_say_nothing_of_other_networks(
    h100: Kernels, changes: dict[str, Any]
) -> None:
    assert collective("all_reduce", 1e9, network(1, 8, **changes), h100) is None
    assert forwarded(dispatch(), 7392.0, network(1, 8, **changes), h100, skew=1.0) is None


def test_gathering_every_token(h100: Kernels) -> None:
    """Forward a gather and a scatter of all tokens of all ranks, backward the other way round."""
    net, row = network(1, 8), 7168 * 2.0
    gather = asked("all_gather", 8 * 4096 * row, net, h100)
    scatter = asked("reduce_scatter", 8 * 4096 * row, net, h100)
    combine = dispatch(name="combine")
    assert gathered(dispatch(), row, net, h100) == gather
    assert gathered(combine, row, net, h100) == scatter
    for operator, expected in ((dispatch(), scatter), (combine, gather)):
        (grad,) = backward(operator)
        assert isinstance(grad, Exchange)
        assert gathered(grad, row, net, h100) == expected


@pytest.mark.parametrize(("domains", "role"), [(1, ""), (4, " over nodes")])
def test_deepep_is_a_sample_of_its_curve(h100: Kernels, domains: int, role: str) -> None:
    """With 256 experts on 8 N ranks; the closed form of the fan-out is that of the family."""
    mine = curve(h100, "forwarded", f"high_throughput dispatch{role}", "fp8_block128")
    samples = columns(
        tokens=4096, hidden=7168, top_k=8, experts=256, ranks=8 * domains, domains=domains,
        network_bytes_per_s=5e10 if domains > 1 else np.inf,
    )  # fmt: skip
    expected = exchange.seconds(exchange.FORWARDED, mine, samples, h100.chip)[0]
    net = network(domains, 8)
    found = forwarded(dispatch(), 7168 * (1 + 4 / 128), net, h100, skew=1.0)
    assert found is not None
    assert found.seconds == pytest.approx(expected)
    fuller = forwarded(dispatch(), 7168 * (1 + 4 / 128), net, h100, skew=2.0)
    assert fuller is not None
    assert fuller.seconds > 1.5 * found.seconds


def test_hybridep_is_bound_by_the_link_inside_a_domain_and_by_the_card_outside(
    h100: Kernels,
) -> None:
    """8 ranks of an NVL72 rack, 256 experts, top 8: a token reaches 8 (1 - C(224,8)/C(256,8)) of
    them, 7/8 of the copies leave. The measured one-sided kernels reach 0.45 to 0.75 of the link."""
    on = device(load_accelerator("gb200"))
    libraries = {"collectives": ("nccl",), "exchange": ("deepep", "trtllm")}
    rack = kernels_for(on, 9e11, libraries)
    row = 7168 * 2.0
    reached = 8 * (1 - math.comb(224, 8) / math.comb(256, 8))
    least_s = 16384 * row * reached * 7 / 8 / 9e11
    times = []
    for name in ("dispatch", "combine"):
        operator = dispatch(name=name, tokens=16384)
        found = forwarded(operator, row, network(1, 8), rack, skew=1.0, link_bound=True)
        assert found is not None
        assert least_s / 0.75 < found.seconds < least_s / 0.45
        times.append(found.seconds)
        away = network(2, 4)
        assert forwarded(operator, row, away, h100, skew=1.0, link_bound=True) == forwarded(
            operator, row, away, h100, skew=1.0
        )
    assert times[0] == times[1]


def test_dropped_tokens_are_not_sent_and_padding_neither(h100: Kernels) -> None:
    net, row = network(1, 8), 7168 * 2.0
    whole = forwarded(dispatch(), row, net, h100, skew=1.0)
    half = forwarded(dispatch(copies=4.0), row, net, h100, skew=1.0)
    padded = forwarded(dispatch(copies=12.0), row, net, h100, skew=1.0)
    assert whole is not None
    assert half is not None
    assert half.seconds < 0.7 * whole.seconds
    assert padded == whole
