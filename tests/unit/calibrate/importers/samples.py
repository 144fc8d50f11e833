"""Small files in the formats of other tools, typed by their documentation; times are made up.

SECRETS stand in the samples and may stand in nothing that is made of them.
"""

import json
from typing import Any

from moesim.calibrate.importers.facts import Facts

SECRETS = ("gpu-host-17", "gpu-host-18", "41234", "hunter2", "AWS_SECRET", "someone")

H100 = Facts(hardware="h100_sxm", interconnect="nvlink")

NCCL_HEADER = """\
# nThread 1 nGpus 1 minBytes 1024 maxBytes 4096 step: 2(factor) warmup iters: 5 iters: 20 \
agg iters: 1 validation: 1 graph: 0
#
# Using devices
"""

NCCL_COLUMNS = """\
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""  # noqa: E501

NCCL_FOOTER = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 12.3456\n#\n"


def nccl_ranks(number: int, per_host: int = 8) -> str:
    return "".join(
        f"#  Rank {rank:2d} Group  0 Pid  41234 on gpu-host-{17 + rank // per_host} device "
        f"{rank % per_host:2d} [0x0f] NVIDIA H100 80GB HBM3\n"
        for rank in range(number)
    )


def nccl_line(size: int, count: int, time_us: float, *, redop: str = "sum", wrong: str = "0",
              in_place: str = "0", type_name: str = "float") -> str:  # fmt: skip
    """A line as src/common.cu prints it: %12li %12li %8s %6s %6s, then %7s %6.2f %6.2f %5s."""
    rate = size / time_us / 1e3
    found = f"{size:12d}  {count:12d}  {type_name:>8s}  {redop:>6s}  {-1:6d}"
    for factor, errors in ((1.0, wrong), (0.5, in_place)):  # in place twice as fast: not to be used
        shown = f"{time_us * factor:7.2f}" if time_us < 1e4 else f"{time_us * factor:.1e}"
        found += f"  {shown:>7s}  {rate / factor:6.2f}  {rate / factor:6.2f}  {errors:>5s}"
    return found + "\n"


def nccl_log(*lines: str, ranks: int = 8, header: str = NCCL_HEADER) -> str:
    version = "NCCL version 2.21.5+cuda12.4\n"
    return header + nccl_ranks(ranks) + version + NCCL_COLUMNS + "".join(lines) + NCCL_FOOTER


ALL_REDUCE = nccl_log(
    nccl_line(1024, 256, 20.0), nccl_line(2048, 512, 25.0), nccl_line(1048576, 262144, 40.0)
)

NCCL_JSON: dict[str, Any] = {
    "version": 1,
    "args": ["/home-of/someone/nccl-tests/build/all_reduce_perf", "-J", "run.json"],
    "env": ["AWS_SECRET=hunter2", "HOSTNAME=gpu-host-17"],
    "nccl_version": 22703,
    "devices": [
        {"rank": rank, "group": 0, "pid": 41234, "hostname": "gpu-host-17", "device": rank}
        for rank in range(8)
    ],
    "results": [
        {
            "size": 1048576, "count": 262144, "type": "float", "redop": "sum", "root": "-1",
            "out_of_place": {"time": 40.0, "alg_bw": 26.2144, "bus_bw": 45.8752, "nwrong": "0"},
            "in_place": {"time": 20.0, "alg_bw": 52.4288, "bus_bw": 91.7504, "nwrong": "0"},
        },
        {
            "size": 2097152, "count": 524288, "type": "float", "redop": "sum", "root": "-1",
            "out_of_place": {"time": "nan", "alg_bw": "nan", "bus_bw": "nan", "nwrong": "0"},
            "in_place": {"time": 20.0, "alg_bw": 1.0, "bus_bw": 1.0, "nwrong": "0"},
        },
    ],
    "out_of_bounds": {"count": 0, "okay": "true"},
}  # fmt: skip

INTRANODE = """\
[config] num_tokens=4096, hidden=7168, num_topk=8
[layout] Kernel performance: 0.047 ms

[testing] Running with BF16, without top-k (async=False, previous=False) ... passed
[tuning] SMs 24, NVL chunk 4: 120.11 GB/s (NVL), avg_t: 2400.00 us
[tuning] SMs 24, NVL chunk default: 150.02 GB/s (NVL), avg_t: 1920.50 us
[tuning] Best dispatch (FP8): SMs 24, NVL chunk 20, 153.20 GB/s (NVL), t: 970.25 us

[tuning] Best dispatch (BF16): SMs 24, NVL chunk 28, 155.00 GB/s (NVL), t: 1860.50 us

[tuning] Best combine: SMs 24, NVL chunk 7: 158.10 GB/s (NVL), t: 1824.00 us
"""

INTERNODE = """\
[config] num_tokens=4096, hidden=7168, num_topk_groups=4, num_topk=8
[tuning] SMs 24, NVL chunk 4, RDMA chunk 4: 110 + 2200 us, 40.11 GB/s (RDMA), 130.9 GB/s (NVL)
[tuning] Best dispatch (FP8): SMs 24, NVL chunk 20, RDMA chunk 28: 98 + 1510 us, 58.31 GB/s (RDMA), 190.31 GB/s (NVL)
[tuning] Best combine: SMs 24, NVL chunk 3, RDMA chunk 12: 61.12 GB/s (RDMA), 199.50 GB/s (NVL)
"""  # noqa: E501

# 128 tokens x 8 experts x (7168 + 224 + 16) bytes = 7,585,792 bytes, in 77.0 us 98.52 GB/s;
# 128 x 8 x 2 x 7168 = 14,680,064 bytes, in 114.0 us 128.77 GB/s; 10 assignments are masked
LOW_LATENCY = """\
Allocating buffer size: 2116.29 MB ...
[rank 0] Dispatch + combine bandwidth: 115.2 GB/s, avg_t=193.0 us, min_t=190.1 us, max_t=199.0 us
[rank 1] Dispatch + combine bandwidth: 115.0 GB/s, avg_t=193.4 us, min_t=190.2 us, max_t=199.9 us
[rank 0] Dispatch bandwidth: 97.60 GB/s, avg_t=77.00 us | Combine bandwidth: 127.50 GB/s, avg_t=114.00 us
[rank 1] Dispatch bandwidth: 95.13 GB/s, avg_t=79.00 us | Combine bandwidth: 125.30 GB/s, avg_t=116.00 us
[rank 0] Dispatch send/recv time: 20.10 + 12.00 us | Combine send/recv time: 19.00 + 22.00 us
[rank 1] Dispatch send/recv time: 20.30 us | Combine send/recv time: 19.00 us
"""  # noqa: E501


def operator(external_id: int, name: str, dims: Any, types: Any, concrete: Any = None) -> Any:
    args = {"External id": external_id, "Input Dims": dims, "Input type": types}
    if concrete is not None:
        args["Concrete Inputs"] = concrete
    return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 41234, "tid": 41234, "ts": 1.0,
            "dur": 99.0, "args": args}  # fmt: skip


def kernel(external_id: int | None, name: str, duration_us: float, **args: Any) -> Any:
    args |= {"device": 0, "stream": 7, "correlation": 7000}
    if external_id is not None:
        args["External id"] = external_id
    return {"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": 7, "ts": 5.0,
            "dur": duration_us, "args": args}  # fmt: skip


BF16 = "c10::BFloat16"
GEMM = "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64"
FLASH = "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64>>(Flash_fwd_params)"
NCCL = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"

# batch 2, sequence 4096, 32 heads, 8 of keys and values, head_dim 128
QUERY, KEYS = [2, 4096, 32, 128], [2, 4096, 8, 128]
FLASH_CONCRETE = ["", "", "", "", "", "4096", "4096", "0.", "True", "False"]

GATHERED = {
    "Collective name": "_allgather_base", "In msg nelems": 1024, "Out msg nelems": 8192,
    "Group size": 8, "dtype": "BFloat16", "In split size": "[]", "Out split size": "[]",
    "Process Group Name": "0", "Process Group Ranks": "[0, 1, 2, 3, 4, 5, 6, 7]",
}  # fmt: skip


def trace(*events: Any, world_size: int = 8) -> str:
    return json.dumps({
        "schemaVersion": 1,
        "deviceProperties": [{"id": 0, "name": "NVIDIA H100 80GB HBM3"}],
        "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": world_size,
                            "nccl_version": "2.21.5"},
        "traceName": "/home-of/someone/gpu-host-17_41234.pt.trace.json",
        "traceEvents": [
            {"ph": "M", "name": "process_name", "pid": 41234, "args": {"name": "python"}}, *events
        ],
    })  # fmt: skip


TRACE = trace(
    operator(1, "aten::mm", [[512, 4096], [4096, 14336]], [BF16, BF16]),
    kernel(1, GEMM, 90.0),
    kernel(1, "void cublasLt::splitKreduce_kernel<32, 16, int>", 10.0),
    operator(2, "aten::mm", [[512, 4096], [4096, 14336]], [BF16, BF16]),
    kernel(2, GEMM, 110.0),
    operator(3, "aten::_flash_attention_forward",
             [QUERY, KEYS, KEYS, [], [], [], [], [], [], []], [BF16, BF16, BF16], FLASH_CONCRETE),
    kernel(3, FLASH, 800.0),
    kernel(4, NCCL, 30.0, **GATHERED),
    kernel(None, "void deep_ep::intranode::dispatch<8, 768, 8192>(int4*)", 250.0),
    kernel(9, "void at::native::vectorized_elementwise_kernel<4, at::native::silu>", 5.0),
)  # fmt: skip

SAMPLES = {
    "all_reduce.log": ALL_REDUCE,
    "run.json": json.dumps(NCCL_JSON, indent=1),
    "intranode.log": INTRANODE,
    "low_latency.log": LOW_LATENCY,
    "trace.json": TRACE,
}
"""One file of each format, complete without further facts."""
