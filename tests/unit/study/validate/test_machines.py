"""From the words for a machine to a profile, also for names that no file had so far."""

import pytest

from moesim.hardware.profiles import cluster_names
from moesim.study.validate.machines import cluster_of
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
