"""Clusters of a given size: tiers, shares of network cards, and sizes that cannot be."""

import pytest

from moesim.hardware.profiles import load_machines
from moesim.hardware.topology import Cluster, bandwidth_among, cluster


def _cluster(name: str, devices: int, domain: int | None = None) -> Cluster:
    return cluster(*load_machines(name), devices, domain=domain)


def test_dgx_h100() -> None:
    # NVLink 4: 18 links of 25 GB/s per direction; 400 Gb/s = 50 GB/s per GPU.
    topology = _cluster("dgx-h100", 1024).topology
    assert topology.scale_up.bandwidth_bytes_per_s == pytest.approx(18 * 25e9)
    assert topology.scale_up.pair_bandwidth_bytes_per_s == pytest.approx(450e9)
    assert topology.scale_up.domain_size == 8
    assert topology.scale_out is not None
    assert topology.scale_out.bandwidth_bytes_per_s == pytest.approx(50e9)
    assert (topology.rails, topology.leaf_devices, topology.oversubscription) == (8, 256, 1.0)


@pytest.mark.parametrize(
    ("name", "share", "pair"),
    [
        ("aws-p4d", 6.25e9, 12.5e9),  # 4 x 100 Gb/s for 8 GPUs: two share a card
        ("aws-p5", 50e9, 50e9),  # 32 x 100 Gb/s for 8 GPUs
        ("aws-p5en", 50e9, 50e9),  # 16 x 200 Gb/s
        ("aws-p6-b300", 100e9, 100e9),  # 16 x 400 Gb/s
        ("gcp-a3-high", 12.5e9, 25e9),  # 4 x 200 Gb/s
        ("gcp-a3-mega", 25e9, 25e9),  # 8 x 200 Gb/s
        ("tpu-v5p-pod", 6.25e9, 25e9),  # 50 Gb/s per chip, one host of four chips
    ],
)
def test_share_of_the_network_cards(name: str, share: float, pair: float) -> None:
    tier = _cluster(name, 8).topology.scale_out
    assert tier is not None
    assert tier.bandwidth_bytes_per_s == pytest.approx(share)
    assert tier.pair_bandwidth_bytes_per_s == pytest.approx(pair)


def test_a_mesh_has_one_link_per_pair() -> None:
    # MI300X: seven xGMI links of 64 GB/s per direction.
    tier = _cluster("mi300x-8", 8).topology.scale_up
    assert tier.pair_bandwidth_bytes_per_s == pytest.approx(64e9)
    assert bandwidth_among(tier, 1) == pytest.approx(64e9)
    assert bandwidth_among(tier, 3) == pytest.approx(192e9)
    assert bandwidth_among(tier, 7) == pytest.approx(448e9)


def test_a_torus_has_two_links_per_axis() -> None:
    tier = _cluster("tpu-v5p-pod", 64).topology.scale_up
    assert tier.pair_bandwidth_bytes_per_s == pytest.approx(90e9)
    assert tier.domain_size == 64


def test_slices_of_several_pods() -> None:
    topology = _cluster("tpu-v5e-pod", 512).topology
    assert topology.scale_up.domain_size == 256
    assert topology.torus is not None
    assert topology.torus.shape == (16, 16)
    halved = _cluster("tpu-v5e-pod", 256, domain=128).topology
    assert halved.torus is not None
    assert halved.torus.shape == (8, 16)
    assert halved.scale_up.domain_size == 128


def test_a_domain_may_be_used_in_part() -> None:
    assert _cluster("gb200-nvl72", 128).topology.scale_up.domain_size == 72
    assert _cluster("gb200-nvl72", 128, domain=64).topology.scale_up.domain_size == 64


@pytest.mark.parametrize(
    ("name", "devices", "domain", "message"),
    [
        ("dgx-h100", 0, None, "has 1 to 10000000 devices, not 0"),
        ("dgx-h100", 12, None, "take 8 or 16"),
        ("aws-p5", 20008, None, "has 1 to 20000 devices"),
        ("l40s-pcie-8", 16, None, "no scale_out network"),
        ("gb200-nvl72", 72, 70, "a multiple or a divisor of the 4 per node, not 70"),
        ("gb200-nvl72", 144, 144, "has 72 devices"),
        ("tpu-v5e-pod", 248, None, "no slice of 248 devices"),
    ],
)
def test_sizes_that_cannot_be(name: str, devices: int, domain: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cluster(name, devices, domain)


def test_part_of_a_node() -> None:
    assert _cluster("dgx-h100", 3).topology.devices == 3


def test_every_figure_of_cluster_and_accelerator_is_listed() -> None:
    names = {figure.name for figure in _cluster("tpu-v6e-pod", 8).figures}
    assert {"scale_up.torus.shape", "scale_out.nic_bandwidth", "peak.bf16"} <= names
