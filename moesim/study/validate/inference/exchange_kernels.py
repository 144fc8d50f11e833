"""Dispatch and combine of tokens by published kernel timings, against the curves of the device."""

import re
from dataclasses import replace

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.families import exchange
from moesim.cost.fitted import Found, Kernels, kernels_for
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import cluster
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.figures import number
from moesim.study.validate.inference.products import IN_SAMPLE
from moesim.study.validate.inference.words import Said, chip_of, rows, software_of
from moesim.study.validate.record import Record, ran
from moesim.study.validate.skipped import SkippedError

_FAMILIES = {family.name: family for family in exchange.FAMILIES}
_EXPERTS = 256
"""Of DeepSeek-V3, whose shape these cases name."""
_ARCHES = {"SM90": "dgx-h100", "SM100": "dgx-b200"}
"""Machines with chips of a generation, one of NVIDIA's cards of 400 Gb/s beside each: assumed."""
_LIBRARIES = (("deepep", "deepep"), ("one-sided", "trtllm"))


def exchange_kernels(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return a record of each phase of each row; SkippedError without curves or machines."""
    del file
    said = Said(case)
    name = said.text("engine", "name").casefold()
    library = next((one for word, one in _LIBRARIES if word in name), None)
    if library is None:
        raise SkippedError(f"no kernels of '{name[:60]}' are known")
    found: list[Record] = []
    for place, row in enumerate(rows(case)):
        here, base = Said(case, row), replace(
            record, row=place, cls="moe", software=software_of(case))  # fmt: skip
        try:
            profile = _profile(here)
            for phase in ("dispatch", "combine"):
                found += _of_phase(here, phase, (profile, library), base)
        except SkippedError as error:
            found.append(replace(base, reason=str(error)))
    if found and all(one.status != "ran" for one in found):
        raise SkippedError(found[0].reason)
    return found


def _profile(said: Said) -> str:
    """Return the machines of a row, which may only name the generation of its chips."""
    arch = said.row.get("arch")
    if arch is None:
        return chip_of(said)
    if arch not in _ARCHES:
        raise SkippedError(f"no machine profile for chips of {arch}")
    return _ARCHES[str(arch)]


def _ranks(said: Said) -> int | None:
    """Return the ranks: `8x4` are 8 on each of 4 nodes, `8 NVLink` 8 inside one domain."""
    words = re.match(r"(\d+)(?:x(\d+)| )", str(said.row.get("ranks_x_nodes") or ""))
    if words is not None:
        return int(words[1]) * int(words[2] or 1)
    return said.count("ep") or said.count("gpus", part="hardware")


def _of_phase(said: Said, phase: str, where: tuple[str, str], record: Record) -> list[Record]:
    column = next(
        (n for n in said.row if n.startswith(f"{phase}_") and n.endswith(("_us", "GBps"))), None
    )
    measured = number(said.row.get(column)) if column else None
    if column is None or not measured:
        return []
    seconds, columns, dtype, assumed = _seconds(said, phase, where)
    record = replace(record, assumed=assumed)
    if column.endswith("_us"):
        return [ran(record, f"{phase}_us", 1e6 * seconds, measured, row=record.row)]
    away = "rdma" in column or "x" in str(said.row.get("ranks_x_nodes"))
    moved = _moved_bytes(columns, dtype, over_network=away)
    return [ran(record, f"{phase}_us", 1e6 * seconds, 1e-3 * moved / measured, row=record.row)]


def _seconds(
    said: Said, phase: str, where: tuple[str, str]
) -> tuple[float, dict[str, Array], str, tuple[str, ...]]:
    profile, library = where
    ranks = _ranks(said)
    tokens = said.count("tokens_per_rank", part="workload")
    hidden, top_k = said.count("hidden", part="workload"), said.count("top_k", part="workload")
    if not (ranks and ranks > 1 and tokens and hidden and top_k):
        raise SkippedError("ranks, tokens, hidden and top_k must be said as whole numbers")
    if ranks > 4096:
        raise SkippedError(f"{ranks} ranks are more than any curve was measured for")
    spec = load_cluster(profile)
    try:
        machines = cluster(spec, load_accelerator(spec.accelerator), ranks)
    except ValueError as error:
        raise SkippedError(str(error)) from None
    inside = machines.topology.scale_up
    domains = max(1, -(-ranks // spec.scale_up.domain.value))
    if _network_alone(said):
        domains = ranks
    kernels = kernels_for(machines.device, inside.bandwidth_bytes_per_s, {"exchange": (library,)})
    found, note = _curve(said, phase, kernels, domains)
    words = said.words(f"{phase}_dtype") or said.text("workload", phase) or "bf16"
    dtype = _dtype(words)
    out = machines.topology.scale_out
    columns = {
        name: np.array([float(value)])
        for name, value in {
            "tokens": tokens, "hidden": hidden, "top_k": top_k,
            "experts": said.count("experts", part="workload") or _EXPERTS, "ranks": ranks,
            "domains": domains, "skew": 1.0,
            "row_bytes": hidden * exchange.ROW_BYTES_PER_VALUE[dtype],
            "network_bytes_per_s": out.bandwidth_bytes_per_s if out and domains > 1 else 1e30,
        }.items()
    }  # fmt: skip
    limit = said.count("topk_groups", part="workload")
    if limit and domains > 1:
        columns["domains_per_token"] = np.array([float(min(limit, domains))])
    family = _FAMILIES[found.curve.family]
    seconds = float(exchange.seconds(family, found.curve, columns, kernels.chip)[0])
    return seconds, columns, dtype, note


def _network_alone(said: Said) -> bool:
    """Tell whether even ranks of a node send to each other over the network, each by its card."""
    return "pure rdma" in said.text("engine", "name").casefold()


def _dtype(words: str) -> str:
    lower = words.casefold()
    return "nvfp4" if "fp4" in lower else "fp8_block128" if "fp8" in lower else "bf16"


def _curve(said: Said, phase: str, kernels: Kernels, domains: int) -> tuple[Found, tuple[str, ...]]:
    words = f"{said.text('engine', 'name')} {said.case.id}".casefold()
    ending = " over nodes" if domains > 1 else ""
    notes = (IN_SAMPLE,) if "deepep" in words else ()
    if "arch" in said.row:
        notes = (f"{said.row['arch']}: machines, formats and kernels of the release not stated",)
    if "one-sided" in words:
        roles = [("distinct", f"high_throughput {phase} NVLinkOneSided")]
    elif re.search(r"low.latency", words):
        roles = [("direct", f"low_latency {phase}{ending}")]
    else:
        roles = [("forwarded", f"high_throughput {phase}{ending}")]
    for dtype in ("bf16", "fp8_block128", "fp8", "nvfp4"):
        found = kernels.first(dtype, *roles)
        if found is not None:
            return found, notes
    raise SkippedError(f"no curve of {roles[0][1]} on this device")


def _moved_bytes(columns: dict[str, Array], dtype: str, *, over_network: bool) -> float:
    """Return the bytes that a published bandwidth counts: DeepEP's README, one row per domain
    reached (own included) over the network, one per rank reached inside NVLink.
    """
    del dtype
    row = float(columns["tokens"][0] * columns["row_bytes"][0])
    if over_network:
        return row * float(exchange.distinct_domains(columns)[0])
    return row * float(exchange.distinct_ranks(columns)[0])
