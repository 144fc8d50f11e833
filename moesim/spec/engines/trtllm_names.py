"""Arguments of `trtllm-serve` and `trtllm-bench`, and keys of their YAML, by what they are here.

Names from tensorrt_llm/commands/serve.py, bench and llmapi/llm_args.py: from memory of the
releases 0.20 to 1.2, unchecked name by name; what no table lists is an error, so a gap shows. A key
of the YAML is written with dots (kv-cache-config.dtype).
"""

from types import MappingProxyType

from moesim.spec.engines.dialect import Dialect, aliases
from moesim.spec.megatron.names import names

_ALIASES = aliases(
    """
    model: -m model-path
    tp-size: tp tensor-parallel-size
    pp-size: pp pipeline-parallel-size
    ep-size: ep moe-expert-parallel-size
    moe-tensor-parallel-size: moe-tp-size
    gpus-per-node: cluster-gpus-per-node
    kv-cache-config.free-gpu-memory-fraction: kv-cache-free-gpu-memory-fraction kv-cache-free-gpu-mem-fraction free-gpu-memory-fraction
    kv-cache-config.dtype: kv-cache-dtype
    extra-llm-api-options: config
    """  # noqa: E501
)
_DRAFTS = "several tokens per step of decoding, where drafts are accepted"
_KERNEL = "which kernel is used; times are those of the profile"
_WAIT = "prompts would wait for others to share an iteration"

DIALECT = Dialect(
    engine="tensorrt-llm",
    program="TensorRT-LLM",
    aliases=_ALIASES,
    mapped_flags=names(
        """
        enable-attention-dp enable-chunked-prefill streaming kv-cache-config.enable-block-reuse
        use-cuda-graph cuda-graph-config.enable-padding cuda-graph-padding-enabled
        attention-dp-config.enable-balance disable-overlap-scheduler
        """
    ),
    mapped_values=names(
        """
        model tp-size pp-size ep-size moe-tensor-parallel-size max-batch-size max-num-tokens
        max-seq-len kv-cache-config.free-gpu-memory-fraction kv-cache-config.dtype
        kv-cache-config.tokens-per-block scheduler-config.capacity-scheduler-policy
        concurrency num-requests dtype extra-llm-api-options backend cuda-graph-config
        cuda-graph-config.max-batch-size cuda-graph-config.batch-sizes cuda-graph-batch-sizes
        cuda-graph-max-batch-size speculative-config.decoding-type
        speculative-config.num-nextn-predict-layers speculative-config.max-draft-len
        speculative-config.speculative-model speculative-config.speculative-model-dir
        attention-dp-config.timeout-iters attention-dp-config.batching-wait-iters server-role
        """
    ),
    silent_flags=names(
        """
        trust-remote-code print-iter-log enable-iter-perf-stats enable-iter-req-stats
        fail-fast-on-attention-window-too-large eos-id-ignore gather-generation-logits
        skip-tokenizer-init return-perf-metrics enable-layerwise-nvtx-marker
        """
    ),
    silent_values=names(
        """
        host port tokenizer log-level gpus-per-node num-postprocess-workers reasoning-parser
        tool-parser metadata-server-config-file served-model-name max-beam-width
        workspace dataset warmup report-json output-json iteration-log request-json modality
        seed revision stream-interval eos-id target-input-len target-output-len
        hf-revision custom-tokenizer num-warmup max-input-len scheduling-params sampler-type
        beam-width
        """
    ),
    unmodelled_flags=MappingProxyType(
        {
            "kv-cache-config.enable-partial-reuse": "prompts of a workload without common "
            "prefixes find nothing to reuse",
            "enable-autotuner": _KERNEL,
            "enable-min-latency": _KERNEL,
            "moe-config.use-low-precision-moe-combine": "half the bytes of the combine",
            "use-low-precision-moe-combine": "half the bytes of the combine",
            "enable-lm-head-tp-in-adp": "the projection to the vocabulary cut among ranks",
            "speculative-config.use-relaxed-acceptance-for-thinking": _DRAFTS,
        }
    ),
    unmodelled_values=MappingProxyType(
        {
            "attn-backend": _KERNEL,
            "moe-backend": _KERNEL,
            "moe-config.backend": _KERNEL,
            "moe-config.max-num-tokens": "more tokens would pass the experts in pieces",
            "moe-max-num-tokens": "more tokens would pass the experts in pieces",
            "moe-config.load-balancer": "how experts are copied: loads stay those of the law",
            "moe-load-balancer": "how experts are copied: loads stay those of the law",
            "moe-cluster-parallel-size": "how experts are cut",
            "cluster-size": "how experts are cut",
            "allreduce-strategy": _KERNEL,
            "nvfp4-gemm-config.allowed-backends": _KERNEL,
            "speculative-config.relaxed-topk": _DRAFTS,
            "speculative-config.relaxed-delta": _DRAFTS,
            "batch-wait-timeout-ms": _WAIT,
            "batch-wait-timeout-iters": _WAIT,
            "batch-wait-max-tokens-ratio": _WAIT,
            "kv-cache-config.max-tokens": "another size of the cache than fits",
            "kv-cache-config.host-cache-size": "blocks of the cache that wait in the host's memory",
            "kv-cache-config.max-attention-window": "the window of attention",
            "kv-cache-config.mamba-ssm-cache-dtype": "the state of linear attention",
            "cache-transceiver-config.backend": "prompts and decoding on different machines",
            "cache-transceiver-config.max-tokens-in-buffer": "prompts and decoding on different "
            "machines",
            "scheduler-config.context-chunking-policy": "how prompts are cut",
            "context-parallel-size": "long prompts cut over ranks",
            "cp-size": "long prompts cut over ranks",
            "torch-compile-config": "which kernels are fused",
            "torch-compile-config.enable-fullgraph": "which kernels are fused",
            "peft-cache-config": "adapters' products and memory",
            "sparse-attention-config.algorithm": "attention to a part of the tokens",
            "quant-config.quant-algo": "the checkpoint's formats are taken",
            "quant-config.kv-cache-quant-algo": "see kv_cache_config.dtype",
            "request-rate": "arrivals: see serving.workload",
        }
    ),
    nulls=names("cuda-graph-config"),
)
"""TensorRT-LLM's arguments."""
