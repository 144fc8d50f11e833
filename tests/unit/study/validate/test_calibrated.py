"""What a source's own shares make of a software profile, by hand."""

from dataclasses import replace

import pytest

from moesim.cost import fitted_transfers
from moesim.cost.collectives import network
from moesim.cost.pricing import machine, transfer
from moesim.cost.software import Software, load_software, on_device
from moesim.hardware.groups import Group
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import Cluster, cluster
from moesim.spec.cases import Words
from moesim.study.validate.calibrated import with_calibration
from tests.unit.cost.machines import layout

LARGE = float(1 << 29)


def _machines(devices: int = 8) -> Cluster:
    spec = load_cluster("dgx-b200")
    return cluster(spec, load_accelerator(spec.accelerator), devices)


def _software(on: Cluster, words: Words) -> Software:
    link = on.topology.scale_up.bandwidth_bytes_per_s
    plain = on_device(load_software("megatron"), on.device, link)
    return with_calibration(plain, words, on.topology)


def test_a_large_message_over_a_node_takes_what_the_source_found() -> None:
    """7/8 of 512 MiB at 0.5 of 900 GB/s, and twice as many bytes for an all-reduce."""
    on = _machines()
    software = _software(on, {"all_gather_efficiency": 0.5, "all_reduce_efficiency": 0.5})
    machines = machine(on.device, on.topology, software, layout(tp=8))
    once_s = 7 / 8 * LARGE / 450e9
    net = machines.networks["tp"]
    assert transfer("all_gather", LARGE, net, machines).seconds == pytest.approx(once_s)
    assert transfer("all_reduce", LARGE, net, machines).seconds == pytest.approx(2 * once_s)


def test_small_messages_keep_the_measured_ramp() -> None:
    """Against the measured curve the factor is the same for all sizes and group sizes."""
    on = _machines()
    software = _software(on, {"all_gather_efficiency": 0.5})
    assert software.kernels is not None
    machines = machine(on.device, on.topology, software, layout(tp=2, dp=4))
    pair = network(Group(2, 1), on.topology, software)
    known = fitted_transfers.collective("all_gather", 1e6, pair, software.kernels)
    whole = network(Group(8, 1), on.topology, software)
    large = fitted_transfers.collective("all_gather", LARGE, whole, software.kernels)
    assert known is not None and large is not None
    factor = 7 / 8 * LARGE / 450e9 / large.seconds
    found = transfer("all_gather", 1e6, machines.networks["tp"], machines)
    assert found.seconds == pytest.approx(known.seconds * factor)


def test_the_factor_is_that_of_a_whole_node_also_for_fewer_devices() -> None:
    words: Words = {"all_gather_efficiency": 0.5}
    few, all_of_them = _software(_machines(2), words), _software(_machines(8), words)
    assert few.stated is not None and few.stated == all_of_them.stated


@pytest.mark.parametrize(("share", "all_pairs"), [(0.706, True), (0.4, False)])
def test_attention_above_plain_products_counts_all_pairs(share: float, all_pairs: bool) -> None:
    software = _software(_machines(), {"gemm_efficiency": 0.488, "attention_fwd_efficiency": share})
    assert software.stated is not None and software.stated.all_pairs is all_pairs
    assert replace(software, stated=None).attention_fraction == share
