"""Another value for each key of a serving scenario, and the settings under which it must matter."""

from tests.house.changes import Change
from tests.house.serving_cluster_changes import CLUSTER, DRAFTS, drafted

UNIFORM = ("serving.workload.prompt={law: uniform, low: 100, high: 900}",)
LOGNORMAL = ("serving.workload.prompt={law: lognormal, mean: 500, cv: 1}",)
GAMMA = ("serving.workload={arrivals: gamma, rate: 20 /s, burstiness: 0.5, prompt: 500, "
         "output: 50, requests: 60}",)  # fmt: skip
CLOSED = ("serving.workload={arrivals: closed, in_flight: 8, rate: null, prompt: 500, output: 50, "
          "requests: 60}",)  # fmt: skip
SLO = ("serving.slo={ttft: 1 s, tpot: 1 s, e2e: 10 s, attainment: 0.5}",)
HALF = (
    "serving.slo={e2e: 100 ms, attainment: 0.01}",
    "serving.workload.output={law: uniform, low: 1, high: 99}",
)
VALUES = ("serving.workload.prompt={law: empirical, values: [300, 600]}",)
LENGTHS = ("serving.workload.prompt={law: empirical, file: lengths-a.csv}",)
TRACED = ("traced.yaml",)
"""This scenario in place of the plain one."""


def _talks(sessions: str) -> tuple[str, ...]:
    return (
        "serving.workload={arrivals: poisson, rate: 20 /s, requests: 60, prompt: 100, output: 50, "
        f"sessions: {{{sessions}}}}}",
    )


TALKS = _talks("turns: 3, think_mean: 100 ms, shared_prefix: 100, longest: 100000")
SPREAD = _talks("turns: {law: lognormal, mean: 4, cv: 1}")
BETWEEN = _talks("turns: {law: uniform, low: 1, high: 9}")
LISTED = _talks("turns: {law: empirical, values: [2, 5]}")
FILED = _talks("turns: {law: empirical, file: lengths-a.csv}")
SESSIONS = "serving.workload.sessions"
OFFLOADED = ("serving.offload={resident_experts: 32, bandwidth: 50 GB/s}",)
HOSTED = (
    "serving.offload={resident_experts: 32, compute: host, host_compute: 1 TFLOP/s, "
    "host_bandwidth: 100 GB/s}",
)
TWIN = ("baseline={equal: active_params}",)
NAMED = ("baseline={model: olmo-1b}",)
WIDE = ("serving.parallel={dp: 4, ep: 4}",)
FAR = ("model=deepseek-v3", "cluster.devices=64", "serving.parallel={dp: 64, ep: 64}")
TIGHT = ("serving.engine.memory_fraction=0.21",)
LAW = "serving.workload.prompt"
SLOW = Change("{devices: 1, speed: 0.8}", (), "cluster.slow")
"""Not modelled in serving: an error names it."""


def _other(layout: str) -> str:
    return f"{{equal: flop, parallel: {{{layout}}}}}"


def _moe(layout: str) -> str:
    return f"{{model: deepseek-v2-lite, parallel: {{{layout}}}}}"


DENSE = (f"baseline={_other('tp: 1')}",)
MOE = (f"baseline={_moe('dp: 4, ep: 4')}",)

PARALLEL: dict[str, Change] = {
    "tp": Change("4"),
    "dp": Change("4"),
    "ep": Change("2"),
    "pp": Change("2"),
    "dcp": Change("2", ("model=deepseek-v2-lite", "serving.parallel={tp: 4}")),
    "exchange": Change("deepep_normal", WIDE),
    "redundant_experts": Change("64", WIDE),
}
OTHER_LAYOUT = {
    "tp": Change(_other("tp: 2, dp: 1"), DENSE, "baseline"),
    "dp": Change(_other("tp: 1, dp: 2"), DENSE, "baseline"),
    "pp": Change(_other("tp: 1, pp: 2"), DENSE, "baseline"),
    "ep": Change(_moe("dp: 4, ep: 2"), MOE, "baseline"),
    "dcp": Change(_moe("tp: 4, dcp: 2"), (f"baseline={_moe('tp: 4')}",), "baseline"),
    "exchange": Change(_moe("dp: 4, ep: 4, exchange: deepep_normal"), MOE, "baseline"),
    "redundant_experts": Change(_moe("dp: 4, ep: 4, redundant_experts: 64"), MOE, "baseline"),
}
CHANGES: dict[str, Change] = {
    "seed": Change("1"),
    "model": Change("qwen3-30b-a3b"),
    "cluster.profile": Change("hgx-h200"),
    "cluster.devices": Change("8"),
    "cluster.devices_per_domain": Change("3"),
    "cluster.price": Change("9 USD/h"),
    "cluster.oversubscription": Change("4", FAR),
    "cluster.speed_spread": Change("0.1"),
    "cluster.slow.devices": SLOW,
    "cluster.slow.speed": SLOW,
    "cluster.slice": Change("[2, 2]"),
    "software": Change("tensorrt-llm"),
    "serving.engine.name": Change("sglang"),
    "serving.engine.batching": Change("static"),
    "serving.engine.max_sequences": Change("2"),
    "serving.engine.token_budget": Change("128"),
    "serving.engine.version": Change("'0.6.6'"),
    "serving.engine.balance_steps": Change("20", ("serving.parallel={dp: 4, ep: 4}",)),
    "serving.engine.overlap": Change("two_batch", ("serving.parallel={dp: 4, ep: 4}",)),
    "serving.engine.max_model_tokens": Change("540"),
    "serving.engine.prefix_caching": Change("false", TALKS),
    "serving.engine.graphs": Change("false"),
    "serving.engine.async_scheduling": Change("false"),
    "serving.engine.graph_sizes": Change("[1, 64]"),
    **drafted("serving.engine", DRAFTS),
    "serving.offload.to": Change("nvme", ("serving.offload={resident_experts: 32}",)),
    "serving.offload.resident_experts": Change("16", OFFLOADED),
    "serving.offload.cache": Change("lru", OFFLOADED),
    "serving.offload.bandwidth": Change("10 GB/s", OFFLOADED),
    "serving.offload.prefetch": Change("0.5", OFFLOADED),
    "serving.offload.compute": Change("device", HOSTED),
    "serving.offload.host_compute": Change("100 GFLOP/s", HOSTED),
    "serving.offload.host_bandwidth": Change("10 GB/s", HOSTED),
    "serving.engine.block_tokens": Change("512"),
    "serving.engine.memory_fraction": Change("0.5"),
    "serving.engine.reserve_output": Change("true", TIGHT),
    **{f"serving.parallel.{name}": change for name, change in PARALLEL.items()},
    "serving.formats.weights": Change("fp8"),
    "serving.formats.attention": Change("fp8"),
    "serving.formats.dense": Change("fp8", ("model=deepseek-v2-lite",)),
    "serving.formats.experts": Change("fp8"),
    "serving.formats.head": Change("fp8"),
    "serving.formats.cache": Change("fp8"),
    "serving.workload.arrivals": Change("constant"),
    "serving.workload.rate": Change("40 /s"),
    "serving.workload.burstiness": Change("2", GAMMA),
    "serving.workload.in_flight": Change("4", CLOSED),
    "serving.workload.requests": Change("70"),
    "serving.workload.warm_up": Change("20"),
    "serving.workload.prompt.law": Change("{law: lognormal, mean: 500, cv: 1}", UNIFORM, LAW),
    "serving.workload.prompt.mean": Change("600", LOGNORMAL),
    "serving.workload.prompt.cv": Change("2", LOGNORMAL),
    "serving.workload.load": Change(
        "{load: mlperf-offline, requests: 60, prompt: 500, output: 50}", (), "serving.workload"
    ),
    "serving.workload.prompt.values": Change("[300, 900]", VALUES),
    "serving.workload.prompt.file": Change("lengths-b.csv", LENGTHS),
    "serving.workload.trace.file": Change("trace-b.csv", TRACED),
    "serving.workload.trace.speed": Change("2", TRACED),
    "serving.workload.trace.start": Change("1 s", TRACED),
    "serving.workload.trace.end": Change("2 s", TRACED),
    "serving.workload.trace.head": Change("5", TRACED),
    "serving.workload.trace.longest_prompt": Change("50", TRACED),
    "serving.workload.trace.longest_output": Change("5", TRACED),
    f"{SESSIONS}.think": Change("exponential", TALKS),
    f"{SESSIONS}.think_mean": Change("1 s", TALKS),
    f"{SESSIONS}.shared_prefix": Change("1000", TALKS),
    f"{SESSIONS}.prefixes": Change("2", TALKS),
    f"{SESSIONS}.longest": Change("400", TALKS),
    f"{SESSIONS}.turns.law": Change("{law: fixed, mean: 4}", SPREAD, f"{SESSIONS}.turns"),
    f"{SESSIONS}.turns.mean": Change("6", SPREAD),
    f"{SESSIONS}.turns.cv": Change("2", SPREAD),
    f"{SESSIONS}.turns.low": Change("3", BETWEEN),
    f"{SESSIONS}.turns.high": Change("5", BETWEEN),
    f"{SESSIONS}.turns.values": Change("[2, 9]", LISTED),
    f"{SESSIONS}.turns.file": Change("lengths-b.csv", FILED),
    **CLUSTER,
    "serving.workload.prompt.low": Change("200", UNIFORM),
    "serving.workload.prompt.high": Change("800", UNIFORM),
    "serving.slo.ttft": Change("1 us", SLO),
    "serving.slo.tpot": Change("1 us", SLO),
    "serving.slo.e2e": Change("1 us", SLO),
    "serving.slo.attainment": Change("1", HALF),
    "baseline.equal": Change("total_params", TWIN),
    "baseline.model": Change("mpt-7b", NAMED),
    **{f"baseline.parallel.{name}": change for name, change in OTHER_LAYOUT.items()},
}
"""Of an output the keys are those of a prompt."""
