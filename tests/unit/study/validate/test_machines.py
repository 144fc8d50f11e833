"""From the words for a machine to a profile, also for names that no file had so far."""

import pytest

from moesim.hardware.profiles import cluster_names
from moesim.study.validate.machines import cluster_of, read_domain
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
