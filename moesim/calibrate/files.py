"""The profiles of a calibrated device as YAML: accelerator, cluster, software, kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moesim import units
from moesim.calibrate.fit import Fitted
from moesim.calibrate.samples import Sample
from moesim.calibrate.session import Calibration
from moesim.calibrate.suite import columns
from moesim.cost.curves import Chip
from moesim.cost.fitted import FAMILY_OF
from moesim.cost.kernel_profiles import KernelProfile, profile_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Where the profiles of a calibration are."""

    accelerator: Path
    cluster: Path
    software: Path
    kernels: Path


@dataclass(frozen=True, slots=True)
class _Figure:
    value: str
    source: str
    kind: str
    note: str = ""

    def lines(self, name: str, indent: int = 0) -> list[str]:
        pad = " " * indent
        found = [f"{pad}{name}:", f"{pad}  value: {self.value}"]
        found += [f"{pad}  source: {_quoted(self.source)}", f"{pad}  kind: {self.kind}"]
        return found + ([f"{pad}  note: {_quoted(self.note)}"] if self.note else [])


def write(calibration: Calibration, out: Path) -> Written:
    """Write all profiles of a calibration into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    name = calibration.name
    written = Written(
        accelerator=out / f"{name}.yaml", cluster=out / f"{name}-cluster.yaml",
        software=out / f"{name}-software.yaml", kernels=out / f"{name}-torch.yaml",
    )  # fmt: skip
    texts = {
        written.accelerator: accelerator_text(calibration),
        written.cluster: cluster_text(calibration),
        written.software: software_text(calibration),
        written.kernels: kernels_text(calibration),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return written


def _source(calibration: Calibration) -> str:
    target = calibration.target
    return f"moesim calibrate on {target.name} with torch {target.torch_version}"


def accelerator_text(calibration: Calibration) -> str:
    """Return the accelerator profile: measured peaks, memory, units."""
    target, chip, source = calibration.target, calibration.fitted.chip, _source(calibration)
    peaks = sorted(chip.peak_flop_per_s.items(), key=lambda pair: -pair[1])
    unit = "threads of one process" if target.kind == "cpu" else "multiprocessors"
    lines = [
        f"# {target.name}, measured by `moesim calibrate`: peaks are the best that torch reached.",
        f"name: {_quoted(calibration.name)}",
        f"vendor: {_quoted(target.vendor)}",
        f"description: {_quoted(_description(calibration))}",
        "peak:",
    ]
    for dtype, rate in peaks:
        best = _Figure(_text(rate, "flop_per_s"), f"{source}, best matrix product", "measured")
        lines += best.lines(dtype, 2)
    room = _Figure(_text(target.capacity_bytes, "bytes"), f"{source}, as the system reports it",
                   "measured")  # fmt: skip
    speed = _Figure(_text(chip.memory_bandwidth_bytes_per_s, "bytes_per_s"),
                    f"{source}, largest copy, bytes read and written", "measured")  # fmt: skip
    lines += ["memory:", *room.lines("capacity", 2), *speed.lines("bandwidth", 2)]
    count = _Figure(str(target.compute_units), f"{source}, {unit}", "measured")
    return _joined([*lines, *count.lines("compute_units"), *_host_link(calibration)])


def _description(calibration: Calibration) -> str:
    target = calibration.target
    threads = f", {target.compute_units} threads" if target.kind == "cpu" else ""
    return f"{target.name}{threads}, calibrated with torch {target.torch_version}"


def _host_link(calibration: Calibration) -> list[str]:
    copies = [s for s in calibration.samples if s.case.variant == "host_to_device"]
    if not copies:
        return []
    rate = max(columns(s.case)["bytes"] / s.timing.seconds for s in copies)
    source = f"{_source(calibration)}, copies from host to device"
    return _Figure(_text(rate, "bytes_per_s"), source, "measured").lines("host_link")


def cluster_text(calibration: Calibration) -> str:
    """Return a cluster of one node with the measured processes as its devices."""
    target, fitted, source = calibration.target, calibration.fitted, _source(calibration)
    ranks = _Figure(str(target.processes), f"{source}, its processes", "measured")
    lines = [
        f"# One node as `moesim calibrate` saw it: {target.processes} process(es).",
        f"name: {_quoted(calibration.name + '-cluster')}",
        f"description: {_quoted('one node of ' + _description(calibration))}",
        f"accelerator: {_quoted(calibration.name + '.yaml')}",
        *ranks.lines("devices_per_node"),
        "scale_up:",
        "  kind: switch",
        *ranks.lines("domain", 2),
    ]
    return _joined([*lines, *_link(fitted, source)])


def _link(fitted: Fitted, source: str) -> list[str]:
    steps = [c.parameters["step_s"] for c in fitted.curves.values() if "step_s" in c.parameters]
    if not steps:
        rate = _Figure(_text(fitted.chip.memory_bandwidth_bytes_per_s, "bytes_per_s"),
                       f"{source}, the rate of its memory", "assumed",
                       "a single device was measured: nothing travels")  # fmt: skip
        wait = _Figure("1 us", f"{source}, a guess", "assumed", "a single device was measured")
        return [*rate.lines("bandwidth", 2), *wait.lines("latency", 2)]
    rate = _Figure(_text(fitted.chip.link_bytes_per_s, "bytes_per_s"),
                   f"{source}, best collective between its processes", "measured")  # fmt: skip
    wait = _Figure(_text(float(np.median(steps)), "s"),
                   f"{source}, a step of a collective, fitted", "fitted")  # fmt: skip
    return [*rate.lines("bandwidth", 2), *wait.lines("latency", 2)]


def software_text(calibration: Calibration) -> str:
    """Return the software profile: which part of the measured peaks torch's operators reach."""
    source, chip = _source(calibration), calibration.fitted.chip
    samples = calibration.samples
    lines = [
        "# What torch makes of this device: by the curves of the kernel profile beside this file;",
        "# where it has none, by one number per kind of operator.",
        f"name: {_quoted(calibration.name + '-software')}",
        f"description: {_quoted('eager torch ' + calibration.target.torch_version)}",
        *_kernel_choice(calibration),
        "efficiency:",
    ]
    for name in ("gemm", "grouped_gemm", "attention", "memory"):
        share = fraction_reached(samples, chip, name)
        where = f"{source}, median over the larger half of its {name} samples"
        lines += _Figure(f"{share:.4g}", where, "measured").lines(name, 2)
    guess = "moesim's own assumption, nothing measured"
    for name, value in (("scale_up", 0.9), ("scale_out", 0.8), ("overlapped", 0.65)):
        lines += _Figure(str(value), guess, "assumed").lines(name, 2)
    least = _text(launch_s(calibration.fitted), "s")
    launch = _Figure(least, f"{source}, smallest kernel in a row", "measured")
    reserved = _Figure("0 B" if calibration.target.kind == "cpu" else "1 GiB", guess, "assumed")
    lost = _Figure("0.05", guess, "assumed")
    lines += [*launch.lines("kernel_launch"), *reserved.lines("reserved_memory")]
    return _joined([*lines, *lost.lines("fragmentation")])


def _kernel_choice(calibration: Calibration) -> list[str]:
    """Return the keys that make a run take the curves of the kernel profile beside this file."""
    curves = f"[{calibration.name}-torch.yaml]"
    keys = [key for key in FAMILY_OF if key != "exchange"]  # dispatch is a plain all-to-all
    why = _quoted(f"eager torch, measured on this very device: {_source(calibration)}")
    return ["kernels:", *(f"  {key}: {curves}" for key in keys), f"  reason: {why}"]


def launch_s(fitted: Fitted) -> float:
    """Return what one more of the smallest kernel adds."""
    for (operator, _, variant), curve in fitted.curves.items():
        if (operator, variant) == ("launch", "eager"):
            return curve.parameters["item_s"]
    return 5e-6


_KINDS_OF_MEMORY = ("norm", "add", "activation", "rope")


def fraction_reached(samples: Sequence[Sample], chip: Chip, name: str) -> float:
    """Return the share of the measured peak that the larger half of the samples reach, median."""
    found = []
    for sample in samples:
        one, size, seconds = sample.case, columns(sample.case), sample.timing.seconds
        if one.operator == "elementwise" and name == "memory" and one.variant in _KINDS_OF_MEMORY:
            found.append((seconds, size["bytes"] / chip.memory_bandwidth_bytes_per_s))
        elif one.operator == name and one.variant not in ("decode", "prefill_grad"):
            found.append((seconds, _flop(name, size) / chip.peak_flop_per_s[one.dtype]))
    if not found:
        return 0.5
    larger = sorted(found)[len(found) // 2 :]
    return float(min(1.0, np.median([ideal / seconds for seconds, ideal in larger])))


def _flop(operator: str, shape: Mapping[str, float]) -> float:
    if operator == "attention":
        pairs = shape["sequences"] * shape["heads"] * shape["queries"] * shape["keys"]
        return 4.0 * pairs * (1 - shape["causal"] / 2) * shape["head_dim"]
    return 2.0 * shape.get("m", shape.get("rows", 0.0)) * shape["n"] * shape["k"]


def kernels_text(calibration: Calibration) -> str:
    """Return the kernel profile with all curves."""
    curves = tuple(calibration.fitted.curves.values())
    profile = KernelProfile(
        name=f"{calibration.name}-torch", accelerator=calibration.name, library="torch",
        version=calibration.target.torch_version,
        description=f"eager torch, measured by moesim calibrate; {calibration.conditions}",
        curves=curves, kinds=("measured",) * len(curves),
    )  # fmt: skip
    body = profile_text(profile).split("\n", 2)[2]
    head = f"# How long torch's operators take on {calibration.name}: measured.\n"
    return f"{head}# Written by `moesim calibrate`; errors are those of shapes left out.\n{body}"


def _text(value: float, dimension: str) -> str:
    """Return a quantity with four digits and its base unit."""
    return f"{value:.4g} {units.DIMENSIONS[dimension].base}"


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
