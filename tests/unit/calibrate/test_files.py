from pathlib import Path

import pytest

from moesim.calibrate.files import fraction_reached, write
from moesim.calibrate.fit import fit
from moesim.calibrate.ranks import collective_grid
from moesim.calibrate.session import Calibration
from moesim.calibrate.suite import Case, case
from moesim.cost.kernel_profiles import curve_index, load_kernels
from moesim.cost.software import load_software
from moesim.hardware.profiles import load_machines
from tests.unit.calibrate.made_up import samples, target


def calibration(processes: int = 1, **changes: object) -> Calibration:
    on = target(processes=processes, **changes)
    found = samples()
    if processes > 1:
        found += samples(collective_grid(on))
    return Calibration(
        target=on, name=on.slug, samples=tuple(found), fitted=fit(on, found, folds=0), spread=0.01,
        conditions="load average 0.1", measured=len(found),
    )  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_the_profiles_are_read_back(tmp_path: Path, processes: int) -> None:
    done = calibration(processes)
    written = write(done, tmp_path / "out")
    cluster, accelerator = load_machines(str(written.cluster))
    chip = done.fitted.chip
    assert accelerator.name == done.name
    assert accelerator.peak.fp32 is not None
    assert accelerator.peak.fp32.kind == "measured"
    assert accelerator.peak.fp32.value == pytest.approx(chip.peak_flop_per_s["fp32"], rel=1e-3)
    assert accelerator.compute_units is not None
    assert accelerator.compute_units.value == 2
    assert cluster.devices_per_node.value == cluster.scale_up.domain.value == processes
    assert cluster.scale_up.bandwidth.kind == ("measured" if processes > 1 else "assumed")
    kernels = load_kernels(str(written.kernels))
    assert (kernels.library, kernels.accelerator) == ("torch", done.name)
    assert set(kernels.kinds) == {"measured"}
    assert len(curve_index(kernels)) == len(done.fitted.curves)
    software = load_software(str(written.software))
    assert 0 < software.gemm_fraction <= 1
    assert software.kernel_launch_s > 0


def test_a_gpu_has_a_link_to_its_host(tmp_path: Path) -> None:
    on = target(kind="cuda", name="NVIDIA X", vendor="nvidia")
    found = samples([*(s.case for s in samples()), *_host_copies()])
    done = Calibration(
        target=on, name="x", samples=tuple(found), fitted=fit(on, found, folds=0), spread=0.0,
        conditions="", measured=0,
    )  # fmt: skip
    _, accelerator = load_machines(str(write(done, tmp_path).cluster))
    assert accelerator.host_link is not None


def _host_copies() -> list[Case]:
    return [case("elementwise", "host_to_device", "fp32", bytes=2**size) for size in (16, 24)]


def test_the_same_calibration_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(calibration(), tmp_path / "a"), write(calibration(), tmp_path / "b")
    for name in ("accelerator", "cluster", "software", "kernels"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()


def test_fractions_stay_below_one() -> None:
    done = calibration()
    for name in ("gemm", "grouped_gemm", "attention", "memory"):
        assert 0 < fraction_reached(done.samples, done.fitted.chip, name) <= 1
    assert fraction_reached([], done.fitted.chip, "gemm") == 0.5
