"""One run of a test program of nccl-tests: what its header says and the lines of its table."""

import re
from dataclasses import dataclass, field

from moesim.errors import CalibrationError

PROGRAMS = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv", "broadcast",
            "reduce", "gather", "scatter", "hypercube")  # fmt: skip
"""Test programs, without the _perf behind each."""

_PROGRAM = re.compile(rf"(?<![a-z_])({'|'.join(PROGRAMS)})_perf(?![a-z])")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as it is written: None where there is none, and how far rounding may be off."""

    value: float | None
    rounding: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One size of one collective."""

    place: str
    """Where it stands, for error messages."""
    size: int
    count: int
    type: str
    redop: str = "none"
    root: int = -1
    time: Figure
    """Microseconds, out of place."""
    rate: Figure
    """Algorithm bandwidth in GB/s, out of place."""
    wrong: int | None
    """Wrong elements out of place; None where results were not checked."""
    wrong_in_place: int | None = None


@dataclass(frozen=True, slots=True)
class Rank:
    """One process or thread with a GPU; `host` serves to count nodes and goes nowhere else."""

    number: int
    group: int
    host: str


@dataclass(slots=True)
class Run:
    """What is known of one run while it is read."""

    collective: str = ""
    version: str = ""
    ranks: list[Rank] = field(default_factory=list)
    num_gpus: int | None = None
    """Ranks of one communicator."""
    num_nodes: int | None = None
    groups: int = 1
    lines: list[Line] = field(default_factory=list)


def collective_in(text: str) -> str:
    """Return the last test program that a command line names, such as all_reduce, or nothing."""
    found = _PROGRAM.findall(text) if "_perf" in text else []
    return str(found[-1]) if found else ""


def count_ranks(run: Run, origin: str) -> None:
    """Set the ranks and nodes of one communicator from the ranks that a header lists."""
    groups: dict[int, list[str]] = {}
    for rank in run.ranks:
        groups.setdefault(rank.group, []).append(rank.host)
    sizes = {(len(hosts), len(set(hosts))) for hosts in groups.values()}
    if len(sizes) > 1:
        raise CalibrationError(f"{origin}: groups of ranks that differ in size or in nodes")
    if sizes:
        run.groups, (run.num_gpus, run.num_nodes) = len(groups), sizes.pop()
    if not all(rank.host for rank in run.ranks):
        run.num_nodes = None


def version_of(code: int) -> str:
    """Return a version out of its number (NCCL_VERSION_CODE): 22703 is 2.27.3, 2708 is 2.7.8."""
    if code >= 10000:
        return f"{code // 10000}.{code % 10000 // 100}.{code % 100}"
    return f"{code // 1000}.{code % 1000 // 100}.{code % 100}"
