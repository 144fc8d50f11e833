"""Kernel profiles survive the way to disk and back, and mistakes in them are named."""

from pathlib import Path

import pytest

from moesim.cost.curves import Curve
from moesim.cost.kernel_profiles import KernelProfile, load_kernels, profile_text
from moesim.cost.surface import Axis, Surface
from moesim.errors import ScenarioError

CURVE = Curve(
    family="gemm",
    dtype="bf16",
    variant='a "quoted" one',
    parameters={"launch_s": 2.5e-6, "compute_fraction": 0.81234},
    surface=Surface(
        (Axis("log2 m", (0.0, 1.0)), Axis("log2 n", (5.0, 7.5))), (0.1, -0.2, 0.0, 1.5)
    ),
    rows=1000,
    median_error=0.0312,
    p90_error=0.11,
    source="somebody/somewhere @0123abc",
    details=(
        Surface((Axis("log2_waves_64x128", (-1.0, 0.0014)),), (0.25, -0.125)),
        Surface((Axis("log2 n", (5.0,)), Axis("log2 k", (1.0, 2.0))), (0.3, 0.4)),
    ),
)
PROFILE = KernelProfile(
    name="h100-sxm--trtllm", accelerator="h100-sxm", library="trtllm", version="1.0",
    description="", curves=(CURVE,), kinds=("fitted",), tables=(("gemm.csv.gz", "0" * 64),),
)  # fmt: skip


def test_there_and_back(tmp_path: Path) -> None:
    file = tmp_path / "h100-sxm--trtllm.yaml"
    file.write_text(profile_text(PROFILE), encoding="utf-8")
    assert load_kernels(str(file)) == PROFILE


def test_a_table_of_the_wrong_size_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(profile_text(PROFILE).replace("100 -200", "100"), encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"bad\.yaml:\d+:\d+: .*4 values, there are 3"):
        load_kernels(str(file))


def test_an_unknown_name_has_its_nearest() -> None:
    with pytest.raises(ScenarioError, match="unknown kernel profile"):
        load_kernels("no-such-profile")
