"""Measurement tables: which columns each kind has, which rows a fit may use, what is told apart.

A table is known by its columns, so a file of any name will do. Columns are documented in the
README under "Your own measurements".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moesim.calibrate import moe_rows
from moesim.cost.families import exchange
from moesim.cost.families.moe_loads import LOAD_COLUMNS, even_rows, summarise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One kind of measurement table."""

    operator: str
    needs: tuple[str, ...]
    """Columns that tell this kind from all others."""
    normal: Callable[["pd.DataFrame"], "pd.DataFrame"]
    """Adds the columns family, variant, reason and the numeric columns of the family; `reason`
    says why a row is left out, or is empty."""
    shape: tuple[str, ...]
    """Columns that make a family of shapes, kept out of a fit as a whole."""


def _reason(frame: "pd.DataFrame", *rules: tuple[str, "pd.Series[bool]"]) -> "pd.DataFrame":
    reason = np.full(len(frame), "", dtype=object)
    if "quality" in frame:
        quality = _words(frame, "quality", "ok").to_numpy()
        bad = ~np.isin(quality, ["ok", "unchecked"])
        reason[bad] = [f"quality {word}" for word in quality[bad]]
    for text, mask in rules:
        reason[mask.fillna(value=False).to_numpy(dtype=bool) & (reason == "")] = text
    return frame.assign(reason=reason)


def _words(frame: "pd.DataFrame", column: str, empty: str = "") -> "pd.Series[str]":
    """Return a column as text; a column with nothing in it at all holds floats."""
    return frame[column].astype(object).fillna(empty).astype(str)


def _gemm(frame: "pd.DataFrame") -> "pd.DataFrame":
    frame = frame.assign(family="gemm", variant="")
    return _reason(frame, ("weights in the L2 cache", frame["weights_l2_resident"]))


def _prefill(frame: "pd.DataFrame") -> "pd.DataFrame":
    return _reason(_with_cache_type(frame.assign(family="attention_prefill")))


def _decode(frame: "pd.DataFrame") -> "pd.DataFrame":
    frame = _with_cache_type(frame.assign(family="attention_decode"))
    return _reason(frame, ("cache in L2", frame["kv_l2_resident"]))


def _with_cache_type(frame: "pd.DataFrame") -> "pd.DataFrame":
    narrow = frame["kv_cache_dtype"] == "fp8"
    cache = np.where(narrow & (frame["dtype"] != "fp8"), ", fp8 cache", "")
    return frame.assign(
        kv_element_bytes=np.where(narrow, 1.0, 2.0),
        variant=_words(frame, "kernel") + cache,
    )


_ABSORBED = ("flash_attention", "FLASH_ATTN_MLA", "FLASHMLA")
"""Kernels whose MLA prefill works on the latent vectors instead of expanded keys and values."""

_PROJECTION_BYTES = {"bf16": 2.0, "fp8_block128": 1.0, "nvfp4": 0.5625}


def _mla(frame: "pd.DataFrame") -> "pd.DataFrame":
    frame = _with_cache_type(frame)
    absorbed = np.where(frame["kernel"].isin(_ABSORBED) & ("seq_len" in frame), "absorbed_", "")
    phase = "prefill" if "seq_len" in frame else "decode"
    projection = _words(frame, "projection_dtype", "none")
    module = np.where(frame["scope"] == "module", ", " + projection + " projections", "")
    return _reason(
        frame.assign(
            family="mla_" + absorbed + phase + "_" + frame["scope"].astype(str),
            variant=frame["variant"] + module,
            projection_element_bytes=projection.map(_PROJECTION_BYTES).fillna(2.0),
        )
    )


def _mla_bmm(frame: "pd.DataFrame") -> "pd.DataFrame":
    return _reason(frame.assign(family="mla_bmm", variant=frame["operator"].astype(str)))


def _elementwise(frame: "pd.DataFrame") -> "pd.DataFrame":
    return _reason(frame.assign(family=frame["operator"].astype(str), variant=""))


def _moe(frame: "pd.DataFrame") -> "pd.DataFrame":
    frame = moe_rows.with_routing(frame)
    skewed = np.where(frame["drawn_at_random"], ", skewed", "")
    frame = frame.assign(
        family="moe",
        variant=_words(frame, "kernel") + skewed,
        gated=frame["gated"].astype(float),
    )
    if "quality" not in frame:
        return _reason(frame)
    untuned = moe_rows.on_untuned_kernels(frame)
    # a random load of the busiest rank: judged as a distribution
    frame = frame.assign(quality=frame["quality"].replace(moe_rows.RANDOM, "ok"))
    return _reason(frame, ("random load on a kernel that is slow_outlier when balanced", untuned))


def _grouped(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Take single grouped products; rows of a group drawn at random are spread evenly."""
    import pandas as pd

    published = frame["routed_rows"].astype(float)
    routed = frame.get("routed_rows_from_mfu", published).fillna(published).astype(float)
    pairs = zip(routed, frame["num_local_experts"], strict=True)
    loads = [summarise(even_rows(round(rows), 1, experts, 1)) for rows, experts in pairs]
    found = pd.DataFrame(loads, columns=list(LOAD_COLUMNS), index=frame.index)
    frame = frame.drop(columns="routed_rows_from_mfu", errors="ignore").assign(
        family="grouped_gemm",
        variant=_words(frame, "kernel") if "kernel" in frame else "",
        **{str(name): found[name] for name in found},
    )
    several = ~frame["operator"].isin(["up_gate", "down"])
    return _reason(frame, ("several operators in one time", several))


_RACK_DEVICES = 72.0
"""Devices in one NVLink domain of an NVL72 rack."""


def _collectives(frame: "pd.DataFrame") -> "pd.DataFrame":
    racks = frame["interconnect"].astype(str).str.contains("nvl72|nvlink5_72", case=False)
    within = racks & _words(frame, "network", "none").str.startswith("none")
    domains = frame["num_nodes"].astype(float).mask(racks, frame["num_gpus"] / _RACK_DEVICES)
    domains = domains.mask(within, 1.0)
    operation = frame["collective"].replace({"send_recv": "send"})
    algorithm = _words(frame, "algorithm", "auto")
    family = operation.where(domains <= 1.0, operation + "_across")
    frame = frame.assign(
        family=family.mask(algorithm != "auto", "custom_all_reduce"),
        variant=algorithm.replace({"auto": ""})
        .mask((algorithm == "auto") & (domains > 1.0), _fabric(frame))
        .mask(_profiled(frame) & (family == "all_reduce") & (algorithm == "auto"), PROFILED),
        ranks=frame["num_gpus"].astype(float),
        domains=domains.clip(lower=1.0),
        network_bytes_per_s=_network_rate(frame),
    )
    derived = frame["time_origin"] == "bandwidth_only"
    return _reason(frame, ("no time published", derived))


PROFILED = "profiled"
"""Variant of all-reduces that a profiler timed kernel by kernel in PyTorch of 2024: up to 60 us
where nccl-tests take 13 (A100, 32 KiB, 2 ranks), presumably with waits for other ranks in them.
Nothing runs by it."""


def _profiled(frame: "pd.DataFrame") -> "pd.Series[bool]":
    import pandas as pd

    if "timing" not in frame:
        return pd.Series(False, index=frame.index)
    return _words(frame, "timing").str.contains("kernel time")


_FABRICS = (
    ("efa", "EFA"), ("infiniband", "InfiniBand"), ("roce", "RoCE"), ("slingshot", "Slingshot"),
    ("ethernet", "Ethernet|TCP"),
)  # fmt: skip
"""Words in the column `network` by the fabric that they name."""


def _fabric(frame: "pd.DataFrame") -> "pd.Series[str]":
    """Return the fabric between nodes as cluster profiles call it; empty where none is named."""
    import pandas as pd

    text = _words(frame, "network")
    found = pd.Series("", index=frame.index)
    for name, words in reversed(_FABRICS):
        found = found.mask(text.str.contains(words, case=False), name)
    return found


def _network_rate(frame: "pd.DataFrame") -> "pd.Series[float]":
    """Read "8x400 Gb/s" as a device's share of the node's cards, in bytes/s."""
    import pandas as pd

    text = frame["network"].astype(str)
    found = text.str.extract(r"(\d+)\s*x\s*(\d+)\s*Gb")
    per_node = pd.to_numeric(found[0]) * pd.to_numeric(found[1]) * 1e9 / 8
    return (per_node / frame["gpus_per_node"].fillna(8)).fillna(50e9)


_STRAIGHT = ("pplx_garden", "torch_all_to_all_single")
"""Libraries that send each assignment to its rank, with many tokens too: their published times are
those of k (1 - 1/N) copies at the rate of the network."""


def _exchange(frame: "pd.DataFrame") -> "pd.DataFrame":
    inside = frame["network"].astype(str).str.startswith("none")
    phase, mode = frame["phase"].astype(str), frame["mode"].astype(str)
    straight = (mode != "high_throughput") | frame["library"].isin(_STRAIGHT)
    family = np.where(straight, "direct", "forwarded")
    family = np.where(frame["library"] == "trtllm", "distinct", family)
    family = np.where(phase == "prepare", "prepare", family)
    algorithm = _words(frame, "algorithm")
    # nodes of 8 Hopper GPUs whose model the source does not name: their rates fit the H100's
    nodes = frame["hardware"] == "hopper_8gpu_node"
    away = nodes | (~inside & (frame["num_nodes"] > 1))
    # Amazon's network starts messages by other means than InfiniBand, and later
    efa = away & frame["network"].astype(str).str.contains("EFA")
    where = np.where(efa, " over EFA", np.where(away, " over nodes", ""))
    frame = frame.assign(
        family=family,
        hardware=frame["hardware"].mask(nodes, "h100_sxm"),
        variant=(mode + " " + phase + " " + algorithm).str.strip() + where,
        dtype=_words(frame, "payload_dtype", "bf16").replace("unknown", "bf16"),
        tokens=frame["tokens_per_rank"].astype(float),
        hidden=frame["hidden_size"].astype(float),
        experts=frame["num_experts"].astype(float),
        ranks=frame["ep_size"].astype(float),
        domains=np.where(inside, 1.0, frame["num_nodes"].astype(float)),
        domains_per_token=frame["max_nodes_per_token"].fillna(99).astype(float),
        network_bytes_per_s=_network_rate(frame).where(~inside, 1e15),
        sms=frame["num_sms"].fillna(24).astype(float),
    )
    frame = frame.assign(time_us=frame["time_us"].fillna(_time_of_bandwidth_us(frame)))
    return _reason(frame, ("no time published", frame["time_us"].isna()))


def _time_of_bandwidth_us(frame: "pd.DataFrame") -> "pd.Series[float]":
    """Return the time behind a published bandwidth, by the bytes that its kind counts.

    rdma_logical: one copy per distinct node, the own one too (DeepEP README @dd758ca); payload and
    recv_payload: one per assignment. Other kinds give no time.
    """
    import pandas as pd

    if "reported_bandwidth_GB_per_s" not in frame:
        return frame["time_us"]
    numeric = frame.select_dtypes("number")
    samples = {str(name): numeric[name].to_numpy(dtype=float) for name in numeric}
    row = frame["hidden"] * frame["dtype"].map(exchange.ROW_BYTES_PER_VALUE)
    nodes = pd.Series(exchange.distinct_domains(samples), index=frame.index)
    kind = frame["bandwidth_kind"].astype(str)
    copies = nodes.where(kind == "rdma_logical", frame["top_k"].astype(float))
    known = kind.isin(["rdma_logical", "recv_payload", "payload"])
    moved = (frame["tokens"] * copies * row).where(known)
    return moved / frame["reported_bandwidth_GB_per_s"] * 1e-3


TABLES = (
    Table(
        operator="gemm", needs=("m", "n", "k"), normal=_gemm,
        shape=("n", "k"),
    ),
    Table(
        operator="attention_prefill",
        needs=("num_heads", "num_kv_heads", "head_dim", "seq_len"),
        normal=_prefill, shape=("num_heads", "num_kv_heads", "head_dim", "sliding_window"),
    ),
    Table(
        operator="attention_decode",
        needs=("num_heads", "num_kv_heads", "head_dim", "kv_tokens"),
        normal=_decode, shape=("num_heads", "num_kv_heads", "head_dim", "sliding_window"),
    ),
    Table(
        operator="mla", needs=("local_num_heads", "scope", "projection_dtype"), normal=_mla,
        shape=("local_num_heads", "batch_size"),
    ),
    Table(
        operator="mla_bmm", needs=("local_num_heads", "num_tokens", "operator"), normal=_mla_bmm,
        shape=("local_num_heads",),
    ),
    Table(
        operator="moe", needs=("expert_ffn_size", "num_experts", "routing", "num_tokens"),
        normal=_moe, shape=("hidden_size", "expert_ffn_size", "num_experts", "top_k", "tp_size"),
    ),
    Table(
        operator="grouped_gemm", needs=("num_local_experts", "routed_rows", "operator", "n", "k"),
        normal=_grouped, shape=("num_local_experts", "n", "k"),
    ),
    Table(
        operator="elementwise", needs=("operator", "rows", "cols"), normal=_elementwise,
        shape=("cols",),
    ),
    Table(
        operator="collectives", needs=("collective", "num_gpus", "bytes"), normal=_collectives,
        shape=("bytes",),
    ),
    Table(
        operator="moe_alltoall", needs=("tokens_per_rank", "phase", "mode"), normal=_exchange,
        shape=("hidden_size", "top_k", "num_experts", "ep_size"),
    ),
)  # fmt: skip
"""Every kind of table that a fit can use."""
