"""Another value for each key of `serving.cluster`, and the settings under which it must matter."""

from tests.house.changes import Change

AT_ONCE = "serving.workload={arrivals: at_once, rate: null"
BUSY = (f"{AT_ONCE}, requests: 80, prompt: {{law: uniform, low: 100, high: 2000}}, "
        "output: {law: uniform, low: 10, high: 200}}",)  # fmt: skip
TALKS = (
    "serving.workload={arrivals: poisson, rate: 20 /s, requests: 60, prompt: 100, output: 50, "
    "sessions: {turns: 3, think_mean: 100 ms, shared_prefix: 100}}",
)
SCALED = ("serving.cluster={autoscaling: {maximum: 4, target: 2, interval: 100 ms, start_up: 1 s}}",
          *BUSY)  # fmt: skip
FAILING = ("serving.cluster={failures: {device_mtbf: 1 s, restart: 100 ms}}",)
DRAINED = ("serving.cluster={drains: [{replica: 0, at: 1 s, duration: 1 s}]}",)


TO_AND_FRO = (
    "serving.parallel={dp: 1}",
    "serving.cluster={disaggregation: attention_ffn, ffn: {devices: 3}}",
    "model=olmoe-1b-7b",
)


def apart(prefill: str = "replicas: 2", decode: str = "replicas: 2", rest: str = "") -> str:
    """Return the setting of a cluster with prefill and decode on replicas of their own."""
    return (
        f"serving.cluster={{disaggregation: prefill_decode, prefill: {{{prefill}}}, "
        f"decode: {{{decode}}}{rest}}}"
    )


def _pool(side: str, held: str, *under: str, rest: str = "replicas: 2") -> tuple[str, ...]:
    """Return settings in which one pool has `held`, and the other is plain."""
    pools = {"prefill": "replicas: 2", "decode": "replicas: 2", side: f"{rest}, {held}"}
    return (*under, apart(**pools))


WIDE = "parallel: {dp: 2, ep: 2}"
TIGHT = "engine: {memory_fraction: 0.21}"
EVICTING = (f"{AT_ONCE}, requests: 400, prompt: 1500, output: 1000}}",)
LONG = (f"{AT_ONCE}, requests: 40, prompt: {{law: uniform, low: 1000, high: 9000}}, output: 200}}",)


GUESSES = "speculative: {draft_tokens: 2, acceptance: 0.8, draft_model: olmo-1b}"
DRAFTS = (f"serving.engine={{{GUESSES}}}",)


def drafted(engine: str, under: tuple[str, ...]) -> dict[str, Change]:
    """Return the changes of an engine's guesses."""
    base = f"{engine}.speculative"
    mtp = "{draft_tokens: 2, acceptance: 0.8, draft_model: null, mtp: true}"
    return {
        f"{base}.draft_tokens": Change("1", under),
        f"{base}.acceptance": Change("0.5", under),
        f"{base}.draft_model": Change("mpt-7b", under),
        f"{base}.mtp": Change(mtp, under, base),
    }


def _guesses(base: str, under: tuple[str, ...]) -> dict[str, Change]:
    """Return the changes of guesses where nobody decodes: an error names them."""
    whole = Change(GUESSES.partition(": ")[2], under, f"{base}.engine.speculative")
    names = ("draft_tokens", "acceptance", "draft_model", "mtp")
    return {f"{base}.engine.speculative.{name}": whole for name in names}


def _of_pool(side: str) -> dict[str, Change]:
    """Return the changes of one pool's keys."""
    base = f"serving.cluster.{side}"
    engine = _pool(side, "engine: {max_sequences: 512}", *BUSY)
    held = "replicas: 2, engine: {memory_fraction: 0.23, token_budget: 1000}"
    full = (*LONG, apart(held, "replicas: 2, engine: {max_sequences: 4}"))
    other = apart("replicas: 3", "replicas: 1").partition("=")[2]
    wide = _pool(side, WIDE, *BUSY, rest="replicas: 1")
    tight = _pool(side, TIGHT, *EVICTING)
    guessing = _pool(side, f"engine: {{{GUESSES}}}", *BUSY)
    patient = (*wide, f"{base}.engine={{balance_steps: 0}}")
    return {
        f"{base}.replicas": Change(other, (*BUSY, apart()), "serving.cluster"),
        f"{base}.router": Change("random", _pool(side, "router: round_robin", *BUSY)),
        f"{base}.engine.name": Change("sglang", engine),
        f"{base}.engine.version": Change("'0.6.6'", engine),
        f"{base}.engine.batching": Change("static", engine if side == "prefill" else tight),
        f"{base}.engine.max_sequences": Change("1", engine),
        f"{base}.engine.token_budget": Change("128", engine if side == "prefill" else tight),
        f"{base}.engine.block_tokens": Change("512", tight if side == "decode" else full),
        f"{base}.engine.memory_fraction": Change("0.205", tight),
        f"{base}.engine.max_model_tokens": Change("1000", engine),
        f"{base}.engine.reserve_output": Change("true", tight if side == "decode" else full),
        f"{base}.engine.balance_steps": Change("20", patient if side == "decode" else wide),
        f"{base}.engine.graphs": Change("false", engine),
        f"{base}.engine.graph_sizes": Change("[1, 64]", engine),
        f"{base}.engine.async_scheduling": Change("false", engine),
        f"{base}.engine.prefix_caching": Change(
            "false" if side == "prefill" else "true", (*TALKS, *_pool(side, "engine: {}"))
        ),
        **(_guesses(base, engine) if side == "prefill" else drafted(f"{base}.engine", guessing)),
        f"{base}.engine.overlap": Change("two_batch", wide),
        f"{base}.parallel.tp": Change("2", _pool(side, "parallel: {tp: 1}", *BUSY,
                                                 rest="replicas: 1")),
        f"{base}.parallel.dp": Change("1", wide),
        f"{base}.parallel.ep": Change("1", wide),
        f"{base}.parallel.pp": Change("2", _pool(side, "parallel: {pp: 1}", *BUSY,
                                                 rest="replicas: 1")),
        f"{base}.parallel.dcp": Change("2", (*_pool(side, "parallel: {tp: 2}", *BUSY,
                                                    rest="replicas: 1"), "model=deepseek-v2-lite")),
        f"{base}.parallel.exchange": Change("deepep_normal", wide),
        f"{base}.parallel.redundant_experts": Change("64", wide),
    }  # fmt: skip


CLUSTER: dict[str, Change] = {
    "serving.cluster.disaggregation": Change(apart().partition("=")[2], (), "serving.cluster"),
    "serving.cluster.replicas": Change("3"),
    "serving.cluster.ffn.devices": Change("1", TO_AND_FRO),
    "serving.cluster.ffn.micro_batches": Change("1", TO_AND_FRO),
    "serving.cluster.router": Change("random"),
    "serving.cluster.transfer.network": Change(
        "scale_out", (apart(rest=", transfer: {network: auto}"),)
    ),
    "serving.cluster.transfer.overlap": Change(
        "layer_wise", (apart(rest=", transfer: {overlap: none}"),)
    ),
    "serving.cluster.autoscaling.minimum": Change("3", SCALED),
    "serving.cluster.autoscaling.maximum": Change("2", SCALED),
    "serving.cluster.autoscaling.target": Change("40", SCALED),
    "serving.cluster.autoscaling.interval": Change("1 s", SCALED),
    "serving.cluster.autoscaling.start_up": Change("100 ms", SCALED),
    "serving.cluster.failures.device_mtbf": Change("3 s", FAILING),
    "serving.cluster.failures.restart": Change("1 s", FAILING),
    "serving.cluster.drains.replica": Change(
        "[{replica: 1, at: 1 s, duration: 1 s}]", DRAINED, "serving.cluster.drains"
    ),
    "serving.cluster.drains.at": Change(
        "[{replica: 0, at: 500 ms, duration: 1 s}]", DRAINED, "serving.cluster.drains"
    ),
    "serving.cluster.drains.duration": Change(
        "[{replica: 0, at: 1 s, duration: 2 s}]", DRAINED, "serving.cluster.drains"
    ),
    **_of_pool("prefill"),
    **_of_pool("decode"),
}
