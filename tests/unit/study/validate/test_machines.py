"""From the words for a machine to a profile, also for names that no file had so far."""

import pytest

from moesim.hardware.profiles import cluster_names, load_accelerator, load_cluster
from moesim.hardware.topology import cluster
from moesim.study.validate.machines import cluster_of, network_rate, read_domain, with_network
from moesim.study.validate.options import Reading
from moesim.study.validate.skipped import SkippedError
from tests.unit.study.validate.made_up import case, case_file


@pytest.mark.parametrize(
    ("name", "chip", "profile"),
    [
        ("my-eight", "NVIDIA H100 SXM5 80GB", "dgx-h100"),
        ("h200-hgx", "", "hgx-h200"),
        ("rack", "NVIDIA GB200 (186 GB)", "gb200-nvl72"),
        ("rack", "GB300 NVL72", "gb300-nvl72"),
        ("b200-hgx", "NVIDIA B200 SXM 180 GB", "dgx-b200"),
        ("box", "A100 40 GB", "aws-p4d"),
        ("box", "NVIDIA A100 SXM 80 GB", "dgx-a100"),
        ("box", "AMD Instinct MI300X", "mi300x-8"),
        ("pod", "Google TPU v5p", "tpu-v5p-pod"),
        ("pod", "TPU v6e (Trillium)", "tpu-v6e-pod"),
        ("dgx-h100", "", "dgx-h100"),
    ],
)
def test_chips_by_their_names(name: str, chip: str, profile: str) -> None:
    file = case_file(hardware={name: {"chip": chip}})
    assert cluster_of(case(hardware=name), file) == profile


def test_every_profile_can_be_named_as_it_is() -> None:
    for name in cluster_names():
        assert cluster_of(case(hardware=name), case_file(hardware={})) == name


@pytest.mark.parametrize("name", ["mystery", "never-described", ""])
def test_unknown_machine_is_a_reason(name: str) -> None:
    with pytest.raises(SkippedError, match=f"no machine profile for the hardware '{name}'"):
        cluster_of(case(hardware=name), case_file())


@pytest.mark.parametrize(
    ("described", "rate"),
    [
        ({"inter_node": "800 Gb/s per node (unit assumed)", "chips_per_node": 8}, 12.5e9),
        ({"inter_node": "InfiniBand 400 Gb/s per GPU", "chips_per_node": 8}, 50e9),
        ({"inter_node": "800 Gb/s per node"}, None),
        ({"inter_node": "some fabric", "chips_per_node": 8}, None),
        ({}, None),
    ],
)
def test_the_network_that_a_file_states(described: dict[str, object], rate: float | None) -> None:
    file = case_file(hardware={"box": {"chip": "A100", **described}})
    assert network_rate(case(hardware="box"), file) == rate


def test_a_stated_network_takes_the_place_of_the_profiles() -> None:
    spec = load_cluster("dgx-a100")
    machines = cluster(spec, load_accelerator(spec.accelerator), 16)
    assert with_network(machines, None) == machines
    out = with_network(machines, 12.5e9).topology.scale_out
    assert out is not None
    assert out.bandwidth_bytes_per_s == 12.5e9


@pytest.mark.parametrize(
    ("profile", "devices", "used"),
    [
        ("gb200-nvl72", 256, 64),  # 4 racks of 16 of their 18 trays
        ("gb200-nvl72", 1152, None),  # 16 whole racks
        ("gb200-nvl72", 72, None),
        ("gb200-nvl72", 8, None),
        ("dgx-h100", 256, None),
        ("tpu-v6e-pod", 512, None),
    ],
)
def test_jobs_leave_trays_of_a_rack_out_rather_than_lie_across(
    profile: str, devices: int, used: int | None
) -> None:
    reading = Reading()
    choice = read_domain(profile, devices, reading)
    assert choice.get("devices_per_domain") == used
    assert bool(reading.assumed) is (used is not None)
