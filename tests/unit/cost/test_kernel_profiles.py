"""Kernel profiles survive the way to disk and back, and mistakes in them are named."""

from dataclasses import replace
from math import log2
from pathlib import Path

import pytest

from moesim.cost.curves import Curve
from moesim.cost.kernel_profiles import KernelProfile, load_kernels, profile_text
from moesim.cost.sites import Sites
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
    file.write_text(profile_text(PROFILE).replace("20-40", "20"), encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"bad\.yaml:\d+:\d+: .*4 values, there are 3"):
        load_kernels(str(file))


def test_an_unknown_name_has_its_nearest() -> None:
    with pytest.raises(ScenarioError, match="unknown kernel profile"):
        load_kernels("no-such-profile")


@pytest.mark.parametrize("values", ["20 -40 0 300", "20-40+0+300", "+20 -40+0 300"])
def test_values_with_spaces_or_signs_between(tmp_path: Path, values: str) -> None:
    file = tmp_path / "spaced.yaml"
    text = profile_text(PROFILE)
    assert "20-40+0+300" in text
    file.write_text(text.replace("20-40+0+300", values), encoding="utf-8")
    assert load_kernels(str(file)) == PROFILE
    whole = text.replace('"step": 5, "values": "20-40+0+300"', '"values": "100 -200 0 1500"')
    file.write_text(whole, encoding="utf-8")
    assert load_kernels(str(file)) == PROFILE


SITES = Sites(
    names=("hidden", "top_k"), reach=(2.0, 0.5), knots=(0.0, 1.5, 3.0),
    places=((log2(2816.0), 3.0), (12.0, 0.0)), values=(0.1, -0.2, 0.0, 1.5, 0.25, -0.01),
)  # fmt: skip


def _with_sites(file: Path, old: str = "", new: str = "") -> KernelProfile:
    profile = replace(PROFILE, curves=(replace(CURVE, sites=SITES),))
    file.write_text(profile_text(profile).replace(old, new) if old else profile_text(profile))
    return profile


def test_sites_there_and_back(tmp_path: Path) -> None:
    file = tmp_path / "sites.yaml"
    profile = _with_sites(file)
    assert load_kernels(str(file)) == profile


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2816 8", "2816", "2 numbers for each site"),
        ("2816 8", "2816 -8", "must be positive"),
        ("2816 8", "2816 eight", "must be positive"),
        ("+300+50", "+300", "6 values, there are 5"),
        ("+300+50", "+300 x", "whole numbers"),
        ("[2, 0.5]", "[2]", "2 names but 1 reaches"),
    ],
)
def test_sites_that_do_not_add_up_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    _with_sites(file, old, new)
    with pytest.raises(ScenarioError, match=said):
        load_kernels(str(file))
