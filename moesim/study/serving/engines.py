"""Engines by name and version: what they do where a user says nothing."""

from dataclasses import dataclass
from typing import Literal, cast

from moesim.cost.serving.capacity import MemoryOf
from moesim.hardware.device import Device
from moesim.sim.serving.rules import Batching
from moesim.spec.serving.parallel import ServingParallelSpec
from moesim.study.serving.presets.lookup import ENGINES, Found, defaults, known_version
from moesim.study.serving.presets.table import Setting, Value

THE_SCENARIO = "the scenario"


@dataclass(frozen=True, slots=True)
class Resolved:
    """One setting of an engine as it runs, and where that comes from."""

    name: str
    value: Value
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The defaults of an engine, with where they are read."""

    name: str
    version: str
    """The known release whose defaults these are."""
    note: str = ""
    """What to tell where that is not the release asked for."""
    software: str
    """The software profile that holds its kernels and host times."""
    batching: Batching
    max_sequences: int
    token_budget: int
    block_tokens: int
    memory_fraction: float
    """Share of the device memory that the engine takes."""
    memory_of: MemoryOf
    """What `memory_fraction` is a share of."""
    reserve_output: bool
    exchange: Literal["allgather_reducescatter", "deepep"]
    prefix_caching: bool = False
    graph_batch: int = 0
    """Largest batch with a captured CUDA graph; 0: none."""
    async_scheduling: bool = False
    """Whether the host prepares an iteration while the device computes the one before."""
    resolved: tuple[Resolved, ...] = ()
    """Each default with its source."""


def preset_of(
    name: str,
    device: Device,
    version: str | None = None,
    parallel: ServingParallelSpec | None = None,
) -> Preset:
    """Return the defaults of an engine on `device`; left out, of the newest version.

    Raises ValueError for a version that no known one stands for.
    """
    return preset_at(name, known_version(name, version), device, parallel)


def preset_at(
    name: str, found: Found, device: Device, parallel: ServingParallelSpec | None = None
) -> Preset:
    """Return the defaults of a known release."""
    cut = parallel or ServingParallelSpec()
    setting = Setting(device=device.name, memory_bytes=device.memory_capacity_bytes, tp=cut.tp,
                      dp=cut.dp, pp=cut.pp)  # fmt: skip
    table = defaults(name, found.version)
    values = {key: one.at(setting) for key, one in table.items()}
    rows = {key: Resolved(key, values[key], one.source) for key, one in table.items()}
    resolved = (rows | {"exchange": _exchange(rows["exchange"], cut)}).values()
    return Preset(
        name=name, version=found.version, note=found.note, software=name,
        batching=cast("Batching", values["batching"]),
        max_sequences=int(values["max_sequences"]), token_budget=int(values["token_budget"]),
        block_tokens=int(values["block_tokens"]),
        memory_fraction=float(values["memory_fraction"]),
        memory_of=cast("MemoryOf", values["memory_of"]),
        reserve_output=bool(values["reserve_output"]),
        exchange=cast("Literal['allgather_reducescatter', 'deepep']", values["exchange"]),
        prefix_caching=bool(values["prefix_caching"]), graph_batch=int(values["graph_batch"]),
        async_scheduling=bool(values["async_scheduling"]),
        resolved=tuple(resolved),
    )  # fmt: skip


def _exchange(default: Resolved, cut: ServingParallelSpec) -> Resolved:
    """Return how tokens reach experts, which serving.parallel may say."""
    if cut.dp == 1:
        return Resolved(default.name, "none", "no effect with dp 1")
    return default if cut.exchange is None else Resolved(default.name, cut.exchange, THE_SCENARIO)


NAMES = tuple(ENGINES)
"""The engines by name."""
