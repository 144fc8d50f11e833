"""From the arguments of an NCCL kernel in a torch trace to a row of the table of collectives.

torch.profiler puts them on the kernel (torch/csrc/distributed/c10d/ParamCommsUtils.hpp):
`Collective name`, `In msg nelems`, `Out msg nelems`, `dtype`, `Group size`, `In split size`,
`Process Group Ranks`. The time is that of one rank and holds its wait for the others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moesim.calibrate.importers.facts import Facts, machines
from moesim.calibrate.importers.rows import Row
from moesim.calibrate.importers.values import count, counts

_NAMES = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "_allgather_base": "all_gather",
    "allgather": "all_gather",
    "all_gather": "all_gather",
    "_reduce_scatter_base": "reduce_scatter",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "alltoall",
    "all_to_allv": "alltoall",
    "alltoall_base": "alltoall",
    "broadcast": "broadcast",
    "send": "send_recv",
}
"""Torch's words for what the tables know; a recv is the other end of a send."""

_TYPES = {
    "BFloat16": ("bf16", 2), "Half": ("fp16", 2), "Float": ("fp32", 4), "Double": ("fp64", 8),
    "Char": ("int8", 1), "Byte": ("int8", 1), "Int": ("int32", 4), "Long": ("int64", 8),
    "Float8_e4m3fn": ("fp8", 1), "Float8_e5m2": ("fp8", 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """What a trace says of the whole job."""

    facts: Facts
    origin: str
    world_size: int | None
    nccl_version: str


def collective(args: Mapping[str, Any], job: Job) -> tuple[Row, str]:
    """Return the row but for its time, or an empty one and why there is none."""
    name = _NAMES.get(str(args.get("Collective name")), "")
    dtype, element_bytes = _TYPES.get(str(args.get("dtype")), ("", 0))
    ranks = count(args.get("Group size"))
    sent, got = count(args.get("In msg nelems")), count(args.get("Out msg nelems"))
    if not name or not dtype:
        return {}, "collective that the tables have no word for, or without arguments"
    if ranks is None or ranks < 2 or not sent or not got:
        return {}, "collective of a single rank, or without its size"
    if name == "alltoall" and not _is_even(args.get("In split size"), ranks):
        return {}, "all-to-all with uneven splits"
    elements = got if name == "all_gather" else sent
    if name in ("all_gather", "reduce_scatter") and max(sent, got) != ranks * min(sent, got):
        return {}, "collective whose sizes do not match its ranks"
    nodes = _nodes(args.get("Process Group Ranks"), ranks, job)
    if nodes is None:
        return {}, "collective of unknown nodes: the ranks of its group are not recorded"
    return _row(name, dtype, elements * element_bytes, (ranks, nodes), job), ""


def _row(name: str, dtype: str, size: int, group: tuple[int, int], job: Job) -> Row:
    where, facts = machines(job.facts, *group, job.origin), job.facts
    return {
        "hardware": facts.hardware,
        "collective": name,
        "library": "nccl",
        "library_version": job.nccl_version or "unknown",
        "algorithm": "auto",
        "dtype": dtype,
        "num_gpus": where.num_gpus,
        "num_nodes": where.num_nodes,
        "gpus_per_node": where.gpus_per_node,
        "interconnect": facts.interconnect,
        "network": where.network,
        "bytes": size,
        "timing": "kernel_profiler",
        "time_origin": "measured",
        "quality": "unchecked",
        "source": "torch-profiler",
    }


def _listed(value: Any) -> list[Any] | None:
    """Return a list that a trace writes as a text; None where it is shortened or absent."""
    if isinstance(value, list):
        return value
    try:
        found = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _is_even(splits: Any, ranks: int) -> bool:
    """Tell an exchange of equal parts; one that states no splits is even."""
    if splits in (None, ""):
        return True
    found = _listed(splits)
    if found is None:
        return False
    return not found or (len(found) == ranks and all(part == found[0] for part in found))


def _nodes(group: Any, ranks: int, job: Job) -> int | None:
    """Return over how many nodes a group of ranks stretches, ranks counted node by node."""
    nodes, world = job.facts.num_nodes or 1, job.facts.num_gpus or job.world_size
    if nodes == 1 or (world is not None and ranks == world):
        return nodes
    numbers = counts([number + 1 for number in _numbers(group)])
    if world is None or numbers is None or len(numbers) != ranks:
        return None
    per_node = max(1, world // nodes)
    return len({(number - 1) // per_node for number in numbers})


def _numbers(group: Any) -> list[int]:
    found = [count(number) for number in _listed(group) or [None]]
    return [number for number in found if number is not None] if None not in found else []
