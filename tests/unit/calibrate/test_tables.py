"""What the kinds of measurement tables take out of their columns."""

from pathlib import Path

import numpy as np
import pytest

from moesim.calibrate.measurements import Group, read_groups


def groups(folder: Path, head: str, *rows: str) -> list[Group]:
    file = folder / "mine.csv"
    file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    found, _ = read_groups(file)
    return found


COLLECTIVES = (
    "hardware,collective,library,library_version,algorithm,dtype,num_gpus,num_nodes,gpus_per_node,"
    "interconnect,network,bytes,time_us,time_origin"
)


@pytest.mark.parametrize(
    ("row", "family", "domains", "network"),
    [
        ("8,1,8,nvlink,none", "all_reduce", 1.0, None),
        ("16,2,8,nvlink,InfiniBand 8x400 Gb/s per node", "all_reduce_across", 2.0, 50e9),
        # a rack of 72 is one domain of eighteen nodes; two racks are two domains
        ("72,18,4,nvlink_nvl72,none (NVLink domain of 72)", "all_reduce", 1.0, None),
        ("144,36,4,nvlink_nvl72,InfiniBand between NVL72 racks", "all_reduce_across", 2.0, 50e9),
    ],
)
def test_domains_of_a_collective(
    tmp_path: Path, row: str, family: str, domains: float, network: float | None
) -> None:
    line = f"gb200,all_reduce,nccl,2.27,auto,fp16,{row},1048576,100,measured"
    (found,) = groups(tmp_path, COLLECTIVES, line)
    assert found.family == family
    assert found.samples["domains"][0] == domains
    if network is not None:
        assert found.samples["network_bytes_per_s"][0] == network


@pytest.mark.parametrize(
    ("network", "fabric"),
    [
        ("EFA 32x100 Gb/s per node", "efa"),
        ("InfiniBand 8x400 Gb/s per node", "infiniband"),
        ("RoCE 8x400 Gb/s per node", "roce"),
        ("Slingshot 4x200 Gb/s per node", "slingshot"),
        ("TCP 8x200 Gb/s per node", "ethernet"),
        ("8x400 Gb/s per node", ""),
    ],
)
def test_the_fabric_between_nodes_is_told_apart(tmp_path: Path, network: str, fabric: str) -> None:
    line = f"h100_sxm,all_reduce,nccl,2.27,auto,fp16,16,2,8,nvlink,{network},1048576,100,measured"
    inside = "h100_sxm,all_reduce,nccl,2.27,auto,fp16,8,1,8,nvlink,none,1048576,100,measured"
    found = {one.family: one.variant for one in groups(tmp_path, COLLECTIVES, line, inside)}
    assert found == {"all_reduce_across": fabric, "all_reduce": ""}


EXCHANGE = (
    "hardware,library,library_version,algorithm,mode,phase,payload_dtype,ep_size,num_nodes,"
    "gpus_per_node,network,hidden_size,top_k,num_experts,max_nodes_per_token,tokens_per_rank,"
    "num_sms,time_us,reported_bandwidth_GB_per_s,bandwidth_kind"
)


def test_a_published_bandwidth_gives_a_time_where_its_bytes_are_known(tmp_path: Path) -> None:
    """UCCL-EP, 16 B200 on two nodes: 60 GB/s and 1,965 us are printed beside each other.

    A token reaches both nodes but for binom(128, 8) / binom(256, 8) = 0.35 %, each way: 1.993
    copies of 14,336 bytes for each of 4,096 tokens are 117 MB. Low latency: 8 copies of 7,392.
    """
    head = "b200_sxm,uccl_ep,README,,"
    place = "16,2,8,EFA 8x400 Gb/s per node,7168,8,256,2"
    found = groups(
        tmp_path, EXCHANGE,
        f"{head}high_throughput,combine,bf16,{place},4096,,,60,rdma_logical",
        f"{head}low_latency,dispatch,fp8_block128,{place},128,,,40,recv_payload",
        f"{head}high_throughput,dispatch,fp8_block128,{place},4096,,,60,nvlink",
    )  # fmt: skip
    seconds = {group.variant: float(group.seconds[0]) for group in found}
    assert seconds["high_throughput combine over EFA"] == pytest.approx(1.965e-3, rel=0.01)
    assert seconds["low_latency dispatch over EFA"] == pytest.approx(128 * 8 * 7392 / 40e9)
    assert len(found) == 2  # what the third counts is not known


def test_libraries_that_send_every_assignment_on_its_own(tmp_path: Path) -> None:
    row = "bf16,16,2,8,InfiniBand CX7,7168,8,256,2,4096,,2735,,"
    found = groups(
        tmp_path, EXCHANGE, f"h100_sxm,pplx_garden,1,cx7,high_throughput,dispatch,{row}",
        f"h100_sxm,deepep,1,,high_throughput,dispatch,{row}",
    )  # fmt: skip
    assert {group.library: group.family for group in found} == {
        "pplx_garden": "direct",
        "deepep": "forwarded",
    }


GROUPED = (
    "hardware,dtype,library,kernel,operator,num_local_experts,n,k,routed_rows,"
    "routed_rows_from_mfu,time_us"
)


def test_grouped_products_spread_their_rows_evenly(tmp_path: Path) -> None:
    """130 rows over 4 experts: 33, 33, 32 and 32, so 3, 3, 2 and 2 tiles of 16 rows."""
    head = "h800_sxm,fp8_block128,deepgemm,grouped_masked"
    (found,) = groups(
        tmp_path, GROUPED, f"{head},up_gate,4,4096,7168,100,130,50",
        f"{head},down,4,7168,2048,64,,40", f"{head},up_gate+act+down,4,7168,2048,64,,40",
    )  # fmt: skip
    assert (found.family, found.variant) == ("grouped_gemm", "grouped_masked")
    assert np.array_equal(found.samples["routed"], [130, 64])
    assert np.array_equal(found.samples["active"], [4, 4])
    assert np.array_equal(found.samples["blocks_16"], [10, 4])
    assert np.array_equal(found.samples["blocks_128"], [4, 4])


def test_kernels_timed_by_a_profiler_are_a_variant_of_their_own(tmp_path: Path) -> None:
    head = COLLECTIVES.replace("time_origin", "timing,time_origin")
    line = "h100_sxm,{},nccl,{},auto,fp16,8,1,8,nvlink,none,1048576,100,{},measured"
    found = groups(
        tmp_path,
        head,
        line.format("all_reduce", "pytorch 2024", '"nccl kernel time, 3 repeats"'),
        line.format("all_reduce", "2.27", "nccl-tests out-of-place"),
        line.format("send_recv", "pytorch 2024", '"nccl kernel time, 3 repeats"'),
    )
    variants = {(one.family, one.version): one.variant for one in found}
    assert variants == {
        ("all_reduce", "pytorch 2024"): "profiled",
        ("all_reduce", "2.27"): "",
        ("send", "pytorch 2024"): "",  # nothing else times a send
    }


MOE = (
    "hardware,dtype,framework,framework_version,kernel,gated,hidden_size,expert_ffn_size,top_k,"
    "num_experts,num_expert_slots,tp_size,ep_size,routing,num_tokens,time_us,quality"
)


def test_random_loads_of_one_token_by_collection(tmp_path: Path) -> None:
    """8 rows that rounding leaves over, of 256 experts on 8 ranks: 1 a rank, or 8 on the first."""
    shape = "True,7168,2048,8,256,256,1,8"
    older, newer, placed = groups(
        tmp_path, MOE,
        f"h100_sxm,bf16,trtllm,1.3.0rc10,a,{shape},power_law_1.2,1,100,random_routing",
        f"h100_sxm,bf16,trtllm,1.3.0rc20,b,{shape},power_law_1.2,1,100,random_routing",
        f"h100_sxm,bf16,trtllm,1.3.0rc20,c,{shape},power_law_1.2_eplb,4096,100,random_routing",
    )  # fmt: skip
    assert [g.variant for g in (older, newer, placed)] == ["a, skewed", "b, skewed", "c"]
    assert older.samples["active"] == 8 and newer.samples["active"] == 1
    assert placed.samples["routed"] == pytest.approx(4096, rel=0.02)


@pytest.mark.parametrize(
    ("library", "kernel", "hidden", "top_k", "active"),
    [
        ("sglang,0.5.14", "any", 7168, 8, 17), ("sglang,0.5.10", "any", 7168, 8, 32),
        ("vllm,0.24.0", "any", 6144, 8, 32), ("trtllm,1.3.0rc20", "any", 7168, 8, 32),
        ("trtllm,1.3.0rc20", "x_min_latency", 4096, 8, 17),
        ("trtllm,1.3.0rc20", "x_min_latency", 4096, 4, 16),
    ],
)  # fmt: skip
def test_which_rows_are_limited_to_groups_of_experts(
    tmp_path: Path, library: str, kernel: str, hidden: int, top_k: int, active: int
) -> None:
    """4 tokens: 8 choices each of different experts, or 16 kept and 16 on the first five."""
    row = f"b200_sxm,bf16,{library},{kernel},True,{hidden},2048,{top_k},256,256,1,1,balanced,4,9,ok"
    (found,) = groups(tmp_path, MOE, row)
    assert found.samples["active"] == active and found.samples["routed"] == 4 * top_k


def test_random_loads_on_untuned_kernels_are_left_out(tmp_path: Path) -> None:
    head = "h100_sxm,bf16,trtllm,1.3.0rc20,a,True,5120,8192,1,16,,1"
    (tmp_path / "mine.csv").write_text(
        "\n".join([
            MOE, f"{head},2,balanced,64,900,slow_outlier", f"{head},2,balanced,128,300,ok",
            f"{head},2,power_law_1.2,64,950,random_routing",
            f"{head},4,balanced,64,100,ok", f"{head},4,power_law_1.2,64,150,random_routing",
        ]) + "\n", encoding="utf-8",
    )  # fmt: skip
    found, skipped = read_groups(tmp_path / "mine.csv")
    assert {g.variant: len(g.seconds) for g in found} == {"a": 2, "a, skewed": 1}
    assert {one.reason: one.rows for one in skipped} == {
        "quality slow_outlier": 1, "random load on a kernel that is slow_outlier when balanced": 1,
    }  # fmt: skip
