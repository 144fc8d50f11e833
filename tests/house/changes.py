"""Another value for each key of a scenario, and the settings under which it must matter."""

from typing import NamedTuple

DENSE = ("model=olmo-1b", "parallel={tp: 2, pp: 2, ep: 1, etp: 1}")
SHARDED = ("model=olmo-1b", "parallel={tp: 1, pp: 1, ep: 1, etp: 1, fsdp: 8}")
TWO_STACKS = (
    "model=switch-base-8",
    "training.target_length=64",
    "parallel={tp: 1, pp: 1, ep: 8, etp: 1}",
)
FAR_TP = ("model=olmo-1b", "parallel={tp: 2, pp: 1, ep: 1, etp: 1}")
LARGE = ("cluster.devices=512", "training.global_batch=512")
UNIFORM = ("routing.load.law=uniform",)
SKEWED = ("routing.load={law: dirichlet, cv: 0.1}",)
TOP2 = (*UNIFORM, "model=mixtral-8x7b", "parallel={ep: 4, etp: 1}")
GSHARD = (*TOP2, "routing.gating={rule: gshard_top2, second_policy: random_gshard}")
THRESHOLD = (
    *TOP2, "routing.gating={rule: gshard_top2, second_policy: threshold, threshold: 0.2}",
)  # fmt: skip
HIERARCHY = (
    *SKEWED,
    "routing.gating={rule: hierarchical, levels: [{fanout: 4, limit: 1}, {fanout: 16, limit: 8}]}",
)
HASH = (*TWO_STACKS, *UNIFORM, "routing.gating.rule=hash")
NESTED = (
    *SKEWED,
    "routing.gating={rule: nested, levels: [{fanout: 4, limit: 1}, {fanout: 16, limit: 8}]}",
)
LEVELS = "routing.gating.levels"
BALANCING = "routing.load.balancing"
FLAT = ("routing.load={balancing: {rule: deepseek_v3}}",)
NO_LOSS = ("routing.load={balancing: {rule: shazeer, w_importance: 0, w_load: 0}}",)
SWITCH = ("routing.load={balancing: {rule: switch, alpha: 0.01}}",)
MIXTURE = "routing.load.mixture"
DOMAINS = (
    "routing.load={law: trace, trace: loads.csv, mixture: [{domain: a, weight: 1}, "
    "{domain: b, weight: 2}]}",
)
SPREADS = ("routing.load={law: lognormal, mixture: [{cv: 0.5, weight: 1}, {cv: 1, weight: 2}]}",)
DRIFT = (
    "routing.load={law: lognormal, mixture: [{cv: 0.5, weight: 1}, {cv: 1, weight: 2}], "
    "drift: {dwell_steps: 1}}",
    "training.steps=8",
    "seed=1",
)
GREEDY = (*SKEWED, "routing.placement.rule=greedy")
REBALANCED = (
    *SKEWED, "routing.placement={rule: greedy, share_correlation: 0.9, rebalance_every: 4}",
)  # fmt: skip
REPLICATED = (*SKEWED, "routing.placement={rule: replicated, redundant_experts: 8}")
LIMITED = (*UNIFORM, "routing.capacity={factor: 1.1}")
FAIRSEQ = (*UNIFORM, "routing.capacity={factor: 1.1, formula: fairseq}")
PADDED = (*FAIRSEQ, "routing.capacity.padding_fraction=0.2")
TWIN = ("baseline={equal: flop, parallel: {}}",)
OTHER = ("baseline={model: olmo-1b, parallel: {}}",)
OWN_LAYOUT = ("baseline={model: olmoe-1b-7b, parallel: {tp: 2, pp: 2, ep: 4, etp: 1}}",)
UNSAVED = (
    "training.tokens=100 Gtokens",
    "campaign={device_mtbf: 100 d, restart: {detect: 5 min, replace: 5 min}, "
    "spare_nodes: 1, repair: 4 d, step_spread: 0.1, seeds: 3, "
    "batch_ramp: [{until_tokens: 20 Gtokens, global_batch: 16}]}",
    "training.global_batch=32",
)
CHECKPOINT = "campaign.checkpoint"
SLOW_STORAGE = ("training.data_loading={storage_bandwidth: 1 kB/s}",)
CAMPAIGN = (
    *UNSAVED,
    f"{CHECKPOINT}={{every: 30 min, storage_bandwidth: 1 GB/s, mode: async, stall: 10 s}}",
)
SYNC = (*UNSAVED, f"{CHECKPOINT}={{every: 30 min, storage_bandwidth: 1 GB/s}}")
STEPWISE = (*UNSAVED, f"{CHECKPOINT}={{every_steps: 1000, storage_bandwidth: 1 GB/s}}")
RAMP = "campaign.batch_ramp"


class Change(NamedTuple):
    """Another value for a key, and the settings under which it must matter."""

    value: str
    under: tuple[str, ...] = ()
    key: str = ""
    """What is set, where the key is inside a list."""
    study: bool = False
    """Whether it is the routing study that shows it."""


PARALLEL: dict[str, Change] = {
    "tp": Change("4"),
    "pp": Change("4"),
    "vpp": Change("2"),
    "cp": Change("2"),
    "cp_comm": Change("all_gather", ("parallel={cp: 2}",)),
    "ep": Change("8"),
    "etp": Change("2"),
    "fsdp": Change("4"),
    "reshard_after_forward": Change("false", SHARDED),
    "sequence_parallel": Change("false", DENSE),
    "schedule": Change("zb_h1"),
    "layout": Change('"E(t)*7|(t)*9L"'),
    "rank_order": Change("cp-ep-dp-pp-tp", FAR_TP),
    "placement": Change("[0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]", FAR_TP),
    "dispatcher": Change("allgather"),
    "dispatch_dtype": Change("fp8"),
}
CHANGES: dict[str, Change] = {
    "seed": Change("1", UNIFORM),
    "model": Change("mixtral-8x7b"),
    "cluster.profile": Change("dgx-a100"),
    "cluster.devices": Change("32"),
    "cluster.devices_per_domain": Change("4", ("parallel={pp: 1, ep: 8}",)),
    "cluster.price": Change("9 USD/h"),
    "cluster.oversubscription": Change("4", LARGE),
    "cluster.speed_spread": Change("0.1"),
    "cluster.slow.devices": Change("16", ("cluster.slow={devices: 1, speed: 0.8}", "seed=1")),
    "cluster.slow.speed": Change("0.5", ("cluster.slow={devices: 1, speed: 0.8}",)),
    "cluster.slice": Change("[2, 8]", ("cluster.profile=tpu-v6e-pod", "software=maxtext")),
    "software": Change("other.yaml"),
    **{f"parallel.{name}": change for name, change in PARALLEL.items()},
    "training.sequence_length": Change("1024"),
    "training.target_length": Change("128", TWO_STACKS),
    "training.global_batch": Change("32"),
    "training.micro_batch": Change("2"),
    "training.precision": Change("fp8"),
    "training.attention_kernel": Change("unfused"),
    "training.permutation": Change(
        "one_hot", (*UNIFORM, "routing.capacity={factor: 2, pad: true}")
    ),
    "training.cross_entropy": Change("unfused"),
    "training.fusions": Change("olmo"),
    "training.fp8_recipe": Change("blockwise", ("training.precision=fp8",)),
    "training.cuda_graph": Change("none"),
    "training.recompute": Change("full"),
    "training.offload_layers": Change("4"),
    "training.optimizer.kind": Change("adafactor"),
    "training.optimizer.distributed": Change("false"),
    "training.optimizer.offload": Change("true"),
    "training.optimizer.post_validation": Change("true", ("parallel={pp: 2, ep: 8}",)),
    "training.optimizer.gradient_dtype": Change("bf16"),
    "training.optimizer.moment_dtype": Change("int8"),
    "training.optimizer.second_moment_dtype": Change("fp16"),
    "training.overlap.grad_reduce": Change("false"),
    "training.overlap.param_gather": Change("false"),
    "training.overlap.tensor_parallel": Change("true", DENSE),
    "training.overlap.expert_exchange": Change("batch", ("parallel={pp: 1, ep: 8}",)),
    "training.overlap.delay_weight_gradients": Change(
        "true", ("parallel={pp: 1, ep: 8}", "training.overlap.expert_exchange=batch")
    ),
    "training.data_loading.storage_bandwidth": Change("2 kB/s", SLOW_STORAGE),
    "training.data_loading.bytes_per_token": Change("8", SLOW_STORAGE),
    "training.data_loading.tokens_per_s": Change(
        "100 tokens/s", ("training.data_loading={tokens_per_s: 50 tokens/s}",)
    ),
    "training.steps": Change("2", UNIFORM),
    "training.tokens": Change("1 Ttokens"),
    "routing.gating.rule": Change("st_moe", UNIFORM),
    "routing.gating.second_policy": Change("none", GSHARD),
    "routing.gating.threshold": Change("0.45", THRESHOLD),
    "routing.gating.noise": Change("3", (*SKEWED, "routing.gating={rule: noisy_topk, noise: 1}")),
    "routing.gating.sharpness": Change("4", GSHARD),
    "routing.gating.levels.fanout": Change(
        "[{fanout: 8, limit: 1}, {fanout: 8, limit: 8}]", HIERARCHY, LEVELS
    ),
    "routing.gating.levels.limit": Change(
        "[{fanout: 4, limit: 2}, {fanout: 16, limit: 4}]", HIERARCHY, LEVELS
    ),
    "routing.gating.levels.link": Change(
        "[{fanout: 4, limit: 1}, {fanout: 16, limit: 8, link: scale_out}]",
        (*HIERARCHY, "parallel={tp: 1, pp: 1, ep: 16, etp: 1}"),
        LEVELS,
        study=True,
    ),
    "routing.gating.levels.rule": Change(
        "[{fanout: 4, limit: 1, rule: base}, {fanout: 16, limit: 8}]", NESTED, LEVELS
    ),
    "routing.gating.zipf_exponent": Change("0.5", HASH),
    "routing.gating.hash_map": Change("balanced", HASH),
    "routing.gating.shared_router": Change("true", HIERARCHY),
    "routing.placement.rule": Change("greedy", SKEWED),
    "routing.placement.redundant_experts": Change("16", REPLICATED, study=True),
    "routing.placement.share_correlation": Change("0.5", GREEDY),
    "routing.placement.rebalance_every": Change("8", REBALANCED, study=True),
    "routing.load.law": Change("uniform"),
    "routing.load.preset": Change(
        "olmoe_inference", ("routing.load={preset: deepseek_v2_lite_inference}",)
    ),
    "routing.load.exponent": Change("1.2", ("routing.load={law: zipf, exponent: 0.5}",)),
    "routing.load.balancing.rule": Change(
        "{rule: shazeer, w_importance: 1, w_load: 1}", FLAT, BALANCING
    ),
    "routing.load.balancing.w_importance": Change("0.2", NO_LOSS),
    "routing.load.balancing.w_load": Change("0.2", NO_LOSS),
    "routing.load.balancing.alpha": Change("0.02", SWITCH),
    "routing.load.mixture.domain": Change(
        "[{domain: b, weight: 1}, {domain: a, weight: 2}]", DOMAINS, MIXTURE
    ),
    "routing.load.mixture.cv": Change(
        "[{cv: 0.5, weight: 1}, {cv: 0.6, weight: 2}]", SPREADS, MIXTURE
    ),
    "routing.load.mixture.weight": Change(
        "[{cv: 0.5, weight: 2}, {cv: 1, weight: 1}]", SPREADS, MIXTURE
    ),
    "routing.load.drift.dwell_steps": Change("1e9", DRIFT),
    "routing.load.drift.dominance": Change("0.5", DRIFT),
    "routing.load.trace": Change("other.csv", ("routing.load={law: trace, trace: loads.csv}",)),
    "routing.load.domain": Change("b", ("routing.load={law: trace, trace: loads.csv}",)),
    "routing.load.detail": Change("profile", ("routing.load={law: trace, trace: loads.csv}",)),
    "routing.load.burst": Change("4", UNIFORM),
    "routing.load.per": Change("step", UNIFORM),
    "routing.capacity.absolute": Change("50", (*UNIFORM, "routing.capacity={absolute: 60}")),
    "routing.capacity.fraction": Change("0.1", (*UNIFORM, "routing.capacity={fraction: 0.12}")),
    "routing.capacity.counts_k": Change("false", LIMITED),
    "routing.capacity.rounding": Change("floor", LIMITED),
    "routing.capacity.alignment": Change("64", LIMITED),
    "routing.capacity.scope": Change("world", LIMITED),
    "routing.capacity.spared_fraction": Change(
        "0.5", (*UNIFORM, "routing.capacity={factor: 0.9, formula: deepseek_v2}")
    ),
    "routing.capacity.policy": Change("position", LIMITED, study=True),
    "routing.capacity.padding_fraction": Change("0.2", FAIRSEQ),
    "routing.capacity.padding_tokens_occupy_capacity": Change("true", PADDED),
    "routing.block_rows": Change("128", UNIFORM),
    "routing.load.cv": Change("1", SKEWED),
    "routing.capacity.factor": Change("2", UNIFORM),
    "routing.capacity.formula": Change("switch", LIMITED),
    "routing.capacity.min_slots": Change("1000", LIMITED),
    "routing.capacity.group_tokens": Change("64", LIMITED),
    "routing.capacity.pad": Change("true", LIMITED),
    "campaign.device_mtbf": Change("50 d", CAMPAIGN),
    "campaign.checkpoint.every": Change("1 h", SYNC),
    "campaign.checkpoint.every_steps": Change("2000", STEPWISE),
    "campaign.checkpoint.size": Change("1 TB", CAMPAIGN),
    "campaign.checkpoint.storage_bandwidth": Change("2 GB/s", CAMPAIGN),
    "campaign.checkpoint.mode": Change(
        "{every: 30 min, storage_bandwidth: 1 GB/s, mode: async, stall: 0 s}", SYNC, CHECKPOINT
    ),
    "campaign.checkpoint.stall": Change("20 s", CAMPAIGN),
    "campaign.restart.detect": Change("1 h", CAMPAIGN),
    "campaign.restart.replace": Change("1 h", CAMPAIGN),
    "campaign.restart.reload": Change("1 h", CAMPAIGN),
    "campaign.spare_nodes": Change("2", CAMPAIGN),
    "campaign.repair": Change("8 d", CAMPAIGN),
    "campaign.batch_ramp.until_tokens": Change(
        "[{until_tokens: 50 Gtokens, global_batch: 16}]", CAMPAIGN, RAMP
    ),
    "campaign.batch_ramp.global_batch": Change(
        "[{until_tokens: 20 Gtokens, global_batch: 64}]", CAMPAIGN, RAMP
    ),
    "campaign.step_spread": Change("0.2", CAMPAIGN),
    "campaign.seeds": Change("4", CAMPAIGN),
    "baseline.equal": Change("total_params", TWIN),
    "baseline.model": Change("mpt-7b", OTHER),
    **{
        f"baseline.parallel.{name}": Change(
            change.value,
            ("baseline={model: olmo-1b, parallel: {cp: 2}}",)
            if name == "cp_comm"
            else ("baseline={model: olmo-1b, parallel: {tp: 2}}",)
            if change.under in (DENSE, FAR_TP)
            else ("baseline={model: olmo-1b, parallel: {fsdp: 8}}",)
            if change.under == SHARDED
            else OWN_LAYOUT,
        )
        for name, change in PARALLEL.items()
    },
}
