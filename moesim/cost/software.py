"""A software profile as numbers in base units, found by name or path."""

from dataclasses import dataclass, replace
from pathlib import Path

from moesim.cost.fitted import FAMILY_OF, Kernels, is_path, kernels_for
from moesim.cost.stated import Stated
from moesim.hardware.device import Device
from moesim.hardware.figures import SourcedFigure, sourced
from moesim.spec.shipped import find_named, shipped
from moesim.spec.software import EfficiencySpec, SoftwareSpec
from moesim.spec.sourced import Figure
from moesim.spec.validate import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What a trainer or engine makes of the hardware; fractions are of the datasheet peak."""

    name: str
    description: str
    gemm_fraction: float
    grouped_gemm_fraction: float
    attention_fraction: float
    memory_fraction: float
    scale_up_fraction: float
    scale_out_fraction: float
    overlapped_fraction: float
    kernel_launch_s: float
    reserved_memory_bytes: float
    fragmentation_fraction: float
    host_per_kernel_s: float = 0.0
    host_sync_s: float = 0.0
    host_per_iteration_s: float = 0.0
    host_per_sequence_s: float = 0.0
    host_per_request_s: float = 0.0
    cuda_graph: str = "none"
    """What of a layer is launched at once, as the run says."""
    attention_slowdown: float = 1.0
    """Time of the run's fused attention over that of the measured kernels, see flash.py."""
    figures: tuple[SourcedFigure, ...] = ()
    libraries: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Libraries whose measured kernels come first, for each kind of kernel."""
    kernels_reason: str = ""
    """Why these kernels stand for the software's own."""
    kernels: Kernels | None = None
    """Their curves for the device of a run, once it is known."""
    stated: Stated | None = None
    """What a source found on its own machine, where a run is one of its cases."""


def load_software(name_or_path: str) -> Software:
    """Return a shipped software profile by name, or the one in a .yaml file.

    Raises ScenarioError for an unknown name or a file with mistakes in it.
    """
    is_path = name_or_path.endswith((".yaml", ".yml"))
    folder = shipped("hwprofiles") / "software"
    path = Path(name_or_path) if is_path else find_named(folder, name_or_path, "software profile")
    return software(load(SoftwareSpec, path), path.parent)


def software(spec: SoftwareSpec, beside: Path = Path()) -> Software:
    """Return the profile as a record; paths of kernel profiles in it start at `beside`."""
    efficiency = spec.efficiency
    return Software(
        name=spec.name,
        description=spec.description,
        gemm_fraction=efficiency.gemm.value,
        grouped_gemm_fraction=efficiency.grouped_gemm.value,
        attention_fraction=efficiency.attention.value,
        memory_fraction=efficiency.memory.value,
        scale_up_fraction=efficiency.scale_up.value,
        scale_out_fraction=efficiency.scale_out.value,
        overlapped_fraction=efficiency.overlapped.value,
        kernel_launch_s=spec.kernel_launch.value,
        reserved_memory_bytes=spec.reserved_memory.value,
        fragmentation_fraction=spec.fragmentation.value,
        host_per_kernel_s=spec.host_per_kernel.value if spec.host_per_kernel else 0.0,
        host_sync_s=spec.host_sync.value if spec.host_sync else 0.0,
        host_per_iteration_s=_optional(spec.host_per_iteration),
        host_per_sequence_s=_optional(spec.host_per_sequence),
        host_per_request_s=_optional(spec.host_per_request),
        figures=_figures(spec),
        libraries=_libraries(spec, beside),
        kernels_reason=spec.kernels.reason if spec.kernels else "",
    )


def _optional(figure: Figure[float] | None) -> float:
    return 0.0 if figure is None else figure.value


_HOST = ("host_per_kernel", "host_sync", "host_per_iteration", "host_per_sequence",
         "host_per_request")  # fmt: skip


def on_device(software: Software, device: Device, link_bytes_per_s: float) -> Software:
    """Return the software with the measured kernels that it has on `device`."""
    if not software.libraries:
        return software
    found = kernels_for(device, link_bytes_per_s, dict(software.libraries))
    return replace(software, kernels=found)


def _libraries(spec: SoftwareSpec, beside: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if spec.kernels is None:
        return ()
    return tuple(
        (key, tuple(str(beside / name) if is_path(name) else name
                    for name in getattr(spec.kernels, key)))
        for key in FAMILY_OF
    )  # fmt: skip


def _figures(spec: SoftwareSpec) -> tuple[SourcedFigure, ...]:
    subject = f"software {spec.name}"
    found: list[SourcedFigure] = []
    for name in EfficiencySpec.model_fields:
        found += sourced(subject, f"efficiency.{name}", getattr(spec.efficiency, name))
    found += sourced(subject, "kernel_launch", spec.kernel_launch, "s")
    for name in _HOST:
        if (figure := getattr(spec, name)) is not None:
            found += sourced(subject, name, figure, "s")
    found += sourced(subject, "reserved_memory", spec.reserved_memory, "bytes")
    found += sourced(subject, "fragmentation", spec.fragmentation)
    return tuple(found)
