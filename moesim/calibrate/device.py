"""The device under torch that is measured: what it is, what it can do, how to wait for it."""

import ctypes
import hashlib
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.calibrate.clock import contention
from moesim.errors import CalibrationError

KINDS = ("cuda", "cpu", "mps")
"""What torch can compute on here; ROCm calls itself cuda."""

_CPU_CACHE_BYTES = 32 * 2**20
"""Last-level cache where the system does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The device that is measured."""

    kind: str
    name: str
    vendor: str
    compute_units: int
    """SMs or CUs of a GPU; threads of a CPU."""
    capacity_bytes: float
    cache_bytes: float
    """The last-level cache: buffers that should be cold are larger together."""
    dtypes: tuple[str, ...]
    """Number formats of matrix products, the one that models are verified in first."""
    torch_version: str
    processes: int = 1
    """Ranks that are measured at once; each is a device of its own."""

    @property
    def asynchronous(self) -> bool:
        """Whether calls return before the device has done them."""
        return self.kind != "cpu"

    @property
    def computing_threads(self) -> int | None:
        """Threads whose waits for a processor count; None for a device of its own."""
        return self.compute_units if self.kind == "cpu" else None

    @property
    def slug(self) -> str:
        """A name for files: the device's own, and for a CPU its threads."""
        words = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        words = words if self.kind != "cpu" else f"cpu-{words}-{self.compute_units}t"
        return words if self.processes == 1 else f"{words}-x{self.processes}"

    @property
    def fingerprint(self) -> str:
        """What must be the same for samples to be comparable."""
        facts = (self.kind, self.name, self.compute_units, self.torch_version, self.processes)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def torch_module() -> Any:
    """Return torch; CalibrationError, with what to install, where it is missing."""
    try:
        import torch
    except ImportError:
        raise CalibrationError(
            "calibration needs torch and scipy; install them with: pip install 'moesim[calibrate]'"
        ) from None
    return torch


def find_target(kind: str | None = None, threads: int | None = None, processes: int = 1) -> Target:
    """Return the device to measure: the one asked for, or the first of cuda, mps and cpu.

    Raises CalibrationError for a device that torch does not have here.
    """
    torch = torch_module()
    found = {"cuda": torch.cuda.is_available(), "mps": _has_mps(torch), "cpu": True}
    chosen = kind or next(name for name in ("cuda", "mps", "cpu") if found[name])
    if not found.get(chosen, False):
        usable = ", ".join(name for name, there in found.items() if there)
        raise CalibrationError(f"torch sees no device '{chosen}' here; it sees {usable}")
    if chosen == "cuda":
        return _cuda(torch, processes)
    if chosen == "mps":
        return _mps(torch)
    return _cpu(torch, threads, processes)


def _has_mps(torch: Any) -> bool:
    return bool(hasattr(torch.backends, "mps") and torch.backends.mps.is_available())


def _cuda(torch: Any, processes: int) -> Target:
    if processes > torch.cuda.device_count():
        raise CalibrationError(
            f"{processes} processes need as many GPUs; torch sees {torch.cuda.device_count()}"
        )
    facts = torch.cuda.get_device_properties(0)
    dtypes = ("bf16", "fp16", "fp32") if torch.cuda.is_bf16_supported() else ("fp16", "fp32")
    return Target(
        kind="cuda", name=facts.name, vendor="amd" if torch.version.hip else "nvidia",
        compute_units=facts.multi_processor_count, capacity_bytes=float(facts.total_memory),
        cache_bytes=float(getattr(facts, "L2_cache_size", 0) or 64 * 2**20), dtypes=dtypes,
        torch_version=torch.__version__, processes=processes,
    )  # fmt: skip


def _mps(torch: Any) -> Target:
    capacity = getattr(torch.mps, "recommended_max_memory", lambda: 8 * 2**30)()
    return Target(
        kind="mps", name=platform.processor() or "apple gpu", vendor="apple", compute_units=1,
        capacity_bytes=float(capacity), cache_bytes=float(_CPU_CACHE_BYTES),
        dtypes=("fp16", "fp32"), torch_version=torch.__version__,
    )  # fmt: skip


def _cpu(torch: Any, threads: int | None, processes: int) -> Target:
    share = threads or _free_threads(torch, processes)
    name, vendor = _cpu_name()
    dtypes = ("fp32", "bf16") if _cpu_has_bf16(torch) else ("fp32",)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if _posix() else 8 * 2**30
    return Target(
        kind="cpu", name=name, vendor=vendor, compute_units=share,
        capacity_bytes=float(pages) / processes, cache_bytes=_cpu_cache_bytes(), dtypes=dtypes,
        torch_version=torch.__version__, processes=processes,
    )  # fmt: skip


BUSY = 0.1
"""Share of the time that threads wait for a processor, beyond which a machine is busy."""


def _free_threads(torch: Any, processes: int) -> int:
    """Return the threads of one process: all, or one where other programs hold processors.

    Threads that wait for each other are as slow as the most delayed one, and no clock can take
    that off again; one thread alone can be timed on a busy machine too.
    """
    most = max(1, torch.get_num_threads() // processes)
    if most == 1:
        return 1
    x = torch.randn(512, 512)
    return most if contention(lambda: x @ x, most) < BUSY else 1


def is_busy(target: Target) -> bool:
    """Return whether a CPU was given fewer threads than it has processors for."""
    used = target.compute_units * target.processes
    return target.kind == "cpu" and used < (os.cpu_count() or 1)


def _posix() -> bool:
    return hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names


def _cpu_name() -> tuple[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    name = model.group(1).strip() if model else platform.processor() or platform.machine()
    vendor = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}
    maker = re.search(r"vendor_id\s*:\s*(\S+)", text)
    return name, f"{vendor.get(maker.group(1) if maker else '', 'cpu')}-cpu"


def _cpu_has_bf16(torch: Any) -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def _cpu_cache_bytes() -> float:
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text(encoding="utf-8")
        return float(text.strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return float(_CPU_CACHE_BYTES)


def prepare(target: Target, rank: int = 0) -> None:
    """Set the threads, the device of this process, and an allocator that keeps its pages.

    GPUs have a caching allocator in torch. On Linux a CPU's would give memory back between
    operators, and the first touch of fresh pages would be measured instead of the operators.
    """
    torch = torch_module()
    if target.kind == "cuda":
        torch.cuda.set_device(rank)
        torch.backends.cuda.matmul.allow_tf32 = False
    if target.kind != "cpu":
        return
    torch.set_num_threads(target.compute_units)
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h."""


def synchronise(target: Target) -> None:
    """Wait until the device has done everything asked of it."""
    torch = torch_module()
    if target.kind == "cuda":
        torch.cuda.synchronize()
    elif target.kind == "mps":
        torch.mps.synchronize()


def torch_dtype(name: str) -> Any:
    """Return torch's type for a number format of ours."""
    torch = torch_module()
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def conditions(target: Target) -> str:
    """Return clock, temperature and load as far as they can be read, for people."""
    notes: list[str] = []
    if target.kind == "cuda":
        torch = torch_module()
        for what, unit, read in (
            ("SM clock", "MHz", torch.cuda.clock_rate),
            ("temperature", "°C", torch.cuda.temperature),
        ):
            try:
                notes.append(f"{what} {read()} {unit}")
            except Exception:  # the library that reads it is optional, and raises what it likes
                continue
    if target.kind == "cpu":
        try:
            path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
            notes.append(f"clock {int(path.read_text(encoding='utf-8')) // 1000} MHz")
        except (OSError, ValueError):
            pass
    if hasattr(os, "getloadavg"):
        notes.append(f"load average {os.getloadavg()[0]:.1f}")
    return ", ".join(notes)
