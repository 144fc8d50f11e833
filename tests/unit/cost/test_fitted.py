"""Which curve stands for an operator: own before lent, near before far, formats kept apart."""

from dataclasses import replace
from pathlib import Path

import pytest

from moesim.cost.curves import Curve
from moesim.cost.fitted import kernels_for
from moesim.cost.kernel_profiles import KernelProfile, load_kernels, profile_text
from moesim.cost.software import load_software, on_device
from moesim.errors import ProfileError
from moesim.hardware.device import Device, device
from moesim.hardware.profiles import load_accelerator
from moesim.spec.shipped import shipped, shipped_names

LIBRARIES = {"gemm": ("trtllm", "vllm"), "collectives": ("nccl",), "exchange": ("deepep",)}


def named(name: str) -> Device:
    return device(load_accelerator(name))


def profile(folder: Path, accelerator: str, *curves: Curve) -> str:
    """Write a kernel profile measured on `accelerator`; return its path."""
    made = KernelProfile(
        name="mine", accelerator=accelerator, library="torch", version="2", description="",
        curves=curves, kinds=("measured",) * len(curves),
    )  # fmt: skip
    path = folder / "mine.yaml"
    path.write_text(profile_text(made), encoding="utf-8")
    return str(path)


def curve(family: str, dtype: str, variant: str = "", rows: int = 20) -> Curve:
    return Curve(
        family=family, dtype=dtype, variant=variant, parameters={"launch_s": 1e-6}, surface=None,
        rows=rows, median_error=0.05, p90_error=0.1, source="a test",
    )  # fmt: skip


def test_a_curve_of_the_device_itself_comes_first() -> None:
    found = kernels_for(named("h100-sxm"), 4.5e11, LIBRARIES).first("bf16", ("gemm", ""))
    assert found is not None
    assert (found.profile, found.tag, found.octaves) == ("h100-sxm--trtllm", "fitted", 0.0)
    assert found.curve.surface is not None


def test_another_library_on_the_device_comes_before_another_device() -> None:
    # DeepGEMM was measured on H800 and H20, not on the L40S
    libraries = {"gemm": ("deepgemm", "vllm")}
    found = kernels_for(named("l40s"), 3.2e10, libraries).first("bf16", ("gemm", ""))
    assert found is not None
    assert found.profile == "l40s--vllm"


def test_the_nearest_device_lends_without_its_residuals() -> None:
    """The H800 is an H100 with slower links; the H200 has more bandwidth."""
    found = kernels_for(named("h800"), 2e11, LIBRARIES).first("bf16", ("gemm", ""))
    assert found is not None
    assert (found.profile, found.tag) == ("h100-sxm--trtllm", "transferred")
    assert found.octaves == pytest.approx(0.0, abs=0.01)


def test_what_the_nearest_lacks_the_next_one_lends() -> None:
    # only the H100's profile of DeepEP has curves between nodes
    kernels = kernels_for(named("h200"), 4.5e11, LIBRARIES)
    near = kernels.first("bf16", ("direct", "low_latency combine"))
    away = kernels.first("bf16", ("direct", "low_latency combine over nodes"))
    assert near is not None
    assert away is not None
    assert (near.profile, near.tag) == ("h200--deepep", "fitted")
    assert (away.profile, away.tag) == ("h100-sxm--deepep", "transferred")


def test_a_device_without_units_for_a_format_borrows_none() -> None:
    assert kernels_for(named("a100-sxm-80gb"), 3e11, LIBRARIES).first("fp8", ("gemm", "")) is None


def test_fp16_kernels_stand_in_for_bf16_and_the_other_way_round() -> None:
    # the V100 has no bf16 peak; what others measured in bf16 tells how fp16 products run
    found = kernels_for(named("v100-sxm-32gb"), 1.5e11, LIBRARIES).first("fp16", ("gemm", ""))
    assert found is not None
    assert found.curve.dtype == "bf16"


def test_devices_of_other_makers_lend_nothing() -> None:
    assert kernels_for(named("mi300x"), 4.5e11, LIBRARIES).first("bf16", ("gemm", "")) is None


def test_an_unknown_library_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ProfileError, match=r"'trtlm'.* Did you mean 'trtllm'\?"):
        kernels_for(named("h100-sxm"), 4.5e11, {"gemm": ("trtlm",)})


def test_a_profile_of_another_device_is_an_error(tmp_path: Path) -> None:
    path = profile(tmp_path, "some-other", curve("gemm", "bf16"))
    with pytest.raises(ProfileError, match=r"some-other, this run is on h100-sxm"):
        kernels_for(named("h100-sxm"), 4.5e11, {"gemm": (path,)})


def test_a_profile_of_the_device_comes_in_its_place_among_libraries(tmp_path: Path) -> None:
    path = profile(tmp_path, "h100-sxm", curve("simple_gemm", "bf16"))
    roles = (("gemm", ""), ("simple_gemm", ""))
    first = kernels_for(named("h100-sxm"), 4.5e11, {"gemm": (path, "trtllm")}).first("bf16", *roles)
    second = kernels_for(named("h100-sxm"), 4.5e11, {"gemm": ("trtllm", path)}).first(
        "bf16", *roles
    )
    assert first is not None
    assert second is not None
    assert (first.profile, first.tag) == ("mine", "measured")
    assert second.profile == "h100-sxm--trtllm"


def test_of_several_kernels_the_one_with_most_rows_stands_for_the_library(tmp_path: Path) -> None:
    path = profile(
        tmp_path, "h100-sxm", curve("moe", "bf16", "rare", 13), curve("moe", "bf16", "usual", 90),
        curve("moe", "bf16", "usual, skewed", 500),
    )  # fmt: skip
    kernels = kernels_for(named("h100-sxm"), 4.5e11, {"grouped_gemm": (path,)})
    found = kernels.first("bf16", ("moe", ""))
    assert found is not None
    assert found.curve.variant == "usual"


def test_a_renamed_copy_of_a_device_is_lent_everything() -> None:
    mine = replace(named("h100-sxm"), name="mine")
    found = kernels_for(mine, 4.5e11, LIBRARIES).first("bf16", ("gemm", ""))
    assert found is not None
    assert found.curve.parameters == _gemm_of("h100-sxm--trtllm").parameters


def _gemm_of(name: str) -> Curve:
    curves = load_kernels(name).curves
    return next(one for one in curves if (one.family, one.dtype) == ("gemm", "bf16"))


@pytest.mark.parametrize("name", shipped_names(shipped("hwprofiles") / "software"))
def test_every_library_of_a_shipped_software_profile_is_known(name: str) -> None:
    device = "tpu-v6e" if name == "maxtext" else "h100-sxm"
    software = on_device(load_software(name), named(device), 4.5e11)
    if name == "mesh-tensorflow":  # nobody measured its kernels
        assert not software.libraries
        return
    assert software.kernels is not None
    for key, libraries in software.libraries:
        lenders = software.kernels.lenders[key]
        assert not libraries or lenders[0].name.startswith(f"{device}--")


def test_a_profile_of_ones_own_is_read_anew(tmp_path: Path) -> None:
    """Shipped profiles are kept once they are read; a file may change under way."""
    for rows in (20, 30):
        path = profile(tmp_path, "h100-sxm", curve("gemm", "bf16", rows=rows))
        kernels = kernels_for(named("h100-sxm"), 4.5e11, {"gemm": (path,)})
        found = kernels.first("bf16", ("gemm", ""))
        assert found is not None
        assert found.curve.rows == rows
