"""Arguments of `python -m sglang.launch_server`, by what they are to a simulation.

Names from python/sglang/srt/server_args.py: from memory of the releases 0.4.6 to 0.5.9, unchecked
name by name; what no table lists is an error, so a gap shows.
"""

from types import MappingProxyType

from moesim.spec.engines.dialect import Dialect, aliases
from moesim.spec.megatron.names import names

_ALIASES = aliases(
    """
    model-path: model
    tp-size: tp tensor-parallel-size
    pp-size: pp pipeline-parallel-size
    dp-size: dp data-parallel-size
    ep-size: ep expert-parallel-size
    dist-init-addr: nccl-init-addr
    enable-torch-compile: torch-compile
    speculative-algorithm: speculative-algo
    speculative-draft-model-path: speculative-draft
    """
)
_DRAFTS = "several tokens per step of decoding, where drafts are accepted"
_DISAGGREGATED = "prompts and decoding on different machines"
_GRAPH = "batches above the largest captured one would wait for launches"

DIALECT = Dialect(
    engine="sglang",
    program="SGLang",
    aliases=_ALIASES,
    mapped_flags=names(
        """
        enable-dp-attention enable-ep-moe enable-deepep-moe enable-mixed-chunk enable-eplb
        enable-two-batch-overlap enable-single-batch-overlap disable-radix-cache
        disable-cuda-graph enable-prefill-delayer disable-overlap-schedule
        """
    ),
    mapped_values=names(
        """
        model-path tp-size pp-size dp-size ep-size ep-num-redundant-experts moe-a2a-backend
        deepep-mode
        max-running-requests chunked-prefill-size max-prefill-tokens mem-fraction-static page-size
        context-length kv-cache-dtype dtype quantization cuda-graph-max-bs cuda-graph-bs
        speculative-algorithm speculative-num-steps speculative-eagle-topk
        speculative-num-draft-tokens speculative-draft-model-path disaggregation-mode
        load-balance-method prefill-delayer-max-delay-passes router-policy
        """
    ),
    silent_flags=names(
        """
        trust-remote-code skip-tokenizer-init enable-metrics log-requests show-time-cost
        is-embedding enable-p2p-check skip-server-warmup enable-cache-report
        decode-log-interval-off enable-request-time-stats-logging disable-fast-image-processor
        enable-return-hidden-states enable-return-routed-experts enable-memory-saver
        enable-deterministic-inference allow-auto-truncate enable-metrics-for-all-schedulers
        """
    ),
    silent_values=names(
        """
        host port api-key served-model-name tokenizer-path tokenizer-mode tokenizer-worker-num
        load-format revision download-dir random-seed device dist-init-addr nnodes node-rank
        log-level log-level-http watchdog-timeout dist-timeout chat-template
        completion-template tool-call-parser reasoning-parser grammar-backend
        sampling-backend sampling-defaults base-gpu-id gpu-id-step file-storage-path
        decode-log-interval json-model-override-args model-loader-extra-config
        constrained-json-whitespace-pattern log-requests-level crash-dump-folder
        weight-version stream-interval preferred-sampling-params nccl-port model-impl
        bucket-time-to-first-token collect-tokens-histogram config
        router-host router-port router-log-level router-worker-startup-timeout-secs
        """
    ),
    unmodelled_flags=MappingProxyType(
        {
            "disable-cuda-graph-padding": _GRAPH,
            "enable-dp-lm-head": "the projection to the vocabulary per attention rank",
            "disable-custom-all-reduce": "small all-reduces would take NCCL's time",
            "enable-mscclpp": "small all-reduces in less time",
            "enable-symm-mem": "all-reduces in less time",
            "enable-nccl-nvls": "all-reduces by the switches",
            "enable-flashinfer-allreduce-fusion": "all-reduce and norm in one kernel",
            "enable-flashinfer-trtllm-moe": "which kernel computes experts; times are those of "
            "the profile",
            "enable-flashinfer-cutlass-moe": "which kernel computes experts; times are those of "
            "the profile",
            "enable-flashinfer-mxfp4-moe": "which kernel computes experts; times are those of the "
            "profile",
            "enable-torch-compile": "which kernels are fused",
            "enable-piecewise-cuda-graph": "prompts would not wait for launches",
            "enable-hierarchical-cache": "blocks of the cache that wait in the host's memory",
            "disable-shared-experts-fusion": "shared experts as products of their own",
            "enable-moe-dense-fully-dp": "dense layers whole on each rank",
            "enable-lora": "adapters' products and memory",
            "enable-multimodal": "encoders of a multimodal model, whose memory is left out",
            "disable-chunked-prefix-cache": "how chunks of latent attention read the cache",
            "enable-expert-distribution-metrics": "counts of experts' tokens",
            "enable-tokenizer-batch-encode": "the host's time before a request is queued",
            "disable-hybrid-swa-memory": "layers with a window would keep all tokens",
            "enable-pdmux": "prompts and decoding at the same time on parts of a device",
        }
    ),
    unmodelled_values=MappingProxyType(
        {
            "schedule-policy": "the order of waiting requests; first come, first served is taken",
            "schedule-conservativeness": "how much room for outputs to come a request needs",
            "max-total-tokens": "another size of the cache than fits",
            "max-queued-requests": "requests that find too long a queue would be refused",
            "torch-compile-max-bs": "which kernels are fused",
            "attention-backend": "which kernel attends; times are those of the profile",
            "prefill-attention-backend": "which kernel attends; times are those of the profile",
            "decode-attention-backend": "which kernel attends; times are those of the profile",
            "mm-attention-backend": "which kernel attends in an encoder",
            "moe-runner-backend": "which kernel computes experts; times are those of the profile",
            "fp8-gemm-backend": "which kernel multiplies; times are those of the profile",
            "fp4-gemm-backend": "which kernel multiplies; times are those of the profile",
            "moe-dense-tp-size": "how dense layers are cut",
            "router-cache-threshold": "how the router weighs prefixes",
            "router-balance-abs-threshold": "how the router weighs prefixes",
            "router-balance-rel-threshold": "how the router weighs prefixes",
            "ep-dispatch-algorithm": "which copy of an expert a token goes to",
            "init-expert-location": "which experts lie on a rank",
            "eplb-algorithm": "how experts are copied: loads stay those of the law",
            "eplb-rebalance-num-iterations": "how often experts move",
            "expert-distribution-recorder-mode": "counts of experts' tokens",
            "expert-distribution-recorder-buffer-size": "counts of experts' tokens",
            "deepep-config": "which SMs transfers take",
            "tbo-token-distribution-threshold": "where a batch is cut in two",
            "speculative-token-map": _DRAFTS,
            "speculative-attention-mode": _DRAFTS,
            "disaggregation-transfer-backend": _DISAGGREGATED,
            "disaggregation-bootstrap-port": _DISAGGREGATED,
            "disaggregation-ib-device": _DISAGGREGATED,
            "disaggregation-decode-tp": _DISAGGREGATED,
            "disaggregation-decode-dp": _DISAGGREGATED,
            "num-reserved-decode-tokens": "room that a decoding machine keeps free",
            "hicache-ratio": "blocks of the cache that wait in the host's memory",
            "hicache-size": "blocks of the cache that wait in the host's memory",
            "cpu-offload-gb": "weights that wait in the host's memory",
            "num-continuous-decode-steps": "several steps between two decisions",
            "swa-full-tokens-ratio": "room for layers with a window",
            "scheduler-recv-interval": "how often new requests are taken",
            "radix-eviction-policy": "which prefixes are forgotten",
            "max-loras-per-batch": "adapters' products and memory",
            "lora-paths": "adapters' products and memory",
            "kv-events-config": "events for a router",
            "mamba-ssm-dtype": "the state of linear attention",
            "max-mamba-cache-size": "the state of linear attention",
            "nsa-prefill-backend": "which kernel attends; times are those of the profile",
            "nsa-decode-backend": "which kernel attends; times are those of the profile",
        }
    ),
    several=names("cuda-graph-bs lora-paths bucket-time-to-first-token served-model-name"),
)
"""SGLang's arguments."""
