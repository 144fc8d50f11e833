"""Megatron-LM arguments that change time or memory in a way moesim does not model, and how.

Sources: Megatron-LM, megatron/training/arguments.py and core/transformer/transformer_config.py,
help texts (from memory, unchecked word by word).
"""

FLAGS = {
    "disable-tp-comm-overlap-ag": "which tensor parallel transfers overlap",
    "disable-tp-comm-overlap-rs": "which tensor parallel transfers overlap",
    "tp-comm-overlap-rs-dgrad": "which tensor parallel transfers overlap",
    "disable-tp-comm-bulk-dgrad": "which tensor parallel transfers overlap",
    "disable-tp-comm-bulk-wgrad": "which tensor parallel transfers overlap",
    "defer-embedding-wgrad-compute": "the embedding's weight gradient would fill the last bubbles",
    "align-grad-reduce": "when stages start to reduce gradients",
    "no-align-grad-reduce": "when stages start to reduce gradients",
    "align-param-gather": "when stages start to gather weights",
    "no-align-param-gather": "when stages start to gather weights",
    "overlap-param-gather-with-optimizer-step": "the first gathers would run beside the update",
    "overlap-p2p-communication-warmup-flush": "transfers of warm-up and flush would be hidden",
    "no-overlap-p2p-communication": "transfers between stages would hold the sender up",
    "fp8-param-gather": "weights would be gathered in one byte each",
    "first-last-layers-bf16": "a few layers would run in bf16",
    "fp8-wgrad": "the type of the weight gradients' products",
    "distribute-saved-activations": "kept inputs would be spread over tp ranks",
    "cpu-offloading": "activations would wait in the host's memory: see training.offload_layers",
    "fine-grained-activation-offloading": "activations would wait in the host's memory: see "
    "training.offload_layers",
    "overlap-cpu-optimizer-d2h-h2d": "the host link would run beside the host's update",
    "use-torch-optimizer-for-cpu-offload": "the host's own time, which is left out",
    "use-nccl-ub": "collectives would take fewer SMs",
    "use-sharp": "reductions would be done by the switches",
    "fsdp-double-buffer": "communication buffers of fsdp would be kept",
    "suggested-communication-unit-size": "the size of fsdp's transfers",
    "moe-use-legacy-grouped-gemm": "another grouped product",
    "moe-router-fusion": "fewer kernels in the router",
    "mla-down-proj-fusion": "one product instead of two in latent attention",
    "cache-mla-latents": "of inference only",
    "no-barrier-with-level-1-timing": "without it a barrier stands at each timer",
    "overlap-dispatch-backward-with-experts-wgrad": "dispatch's backward would be hidden",
    "use-transformer-engine-op-fuser": "fewer kernels in dense networks",
}  # fmt: skip
"""Arguments without a value: what would change."""

VALUES = {
    "hierarchical-context-parallel-sizes": "a two-level context parallel transfer",
    "rampup-batch-size": "small batches at the start: see campaign.batch_ramp",
    "moe-router-dtype": "the type of the router's small product",
    "moe-deepep-num-sms": "the SMs that dispatch and combine take",
    "moe-hybridep-num-sms": "the SMs that dispatch and combine take",
    "ddp-bucket-size": "the size of gradient transfers",
    "ddp-num-buckets": "the size of gradient transfers",
    "ddp-pad-buckets-for-high-nccl-busbw": "the size of gradient transfers",
    "ddp-average-in-collective": "one kernel of the gradients' reduction",
    "wgrad-deferral-limit": "how much of the embedding's weight gradient is put off",
    "main-params-dtype": "bytes of the master weights: fp32 is assumed",
    "tp-comm-overlap-cfg": "which tensor parallel transfers overlap",
    "tp-comm-bootstrap-backend": "how overlap is set up",
    "nccl-communicator-config-path": "channels of the collectives",
    "microbatch-group-size-per-vp-stage": "micro-batches in a group of the interleaved schedule: "
    "pp is assumed",
    "offload-modules": "activations would wait in the host's memory: see training.offload_layers",
    "cuda-graph-warmup-steps": "the first steps",
    "cuda-graph-retain-backward-graph": "memory of graphs",
    "moe-pad-experts-for-cuda-graph-inference": "of inference only",
    "moe-expert-rank-capacity-factor": "rows that a rank accepts",
    "num-distributed-optimizer-instances": "optimizer states spread over a part of the replicas",
    "te-precision-config-file": "types of single products",
}
"""Arguments with values: what would change."""

ABSENT = {
    "moe-grouped-gemm": "each expert's product would be launched alone; moesim takes grouped ones",
    "moe-permute-fusion": "permutation would take more kernels; moesim takes fused ones",
    "qk-layernorm": "latent vectors would not be normalised; moesim always counts those norms",
}
"""What Megatron-LM does without these, and what is taken instead."""
