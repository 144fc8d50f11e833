"""Arguments of `vllm serve`, by what they are to a simulation.

Names from vllm/engine/arg_utils.py and vllm/entrypoints/openai/cli_args.py: from memory of the
releases 0.6 to 0.19, unchecked name by name; what no table lists is an error, so a gap shows.
"""

from types import MappingProxyType

from moesim.spec.engines.dialect import Dialect, aliases
from moesim.spec.megatron.names import names

_ALIASES = aliases(
    """
    tensor-parallel-size: -tp
    pipeline-parallel-size: -pp
    data-parallel-size: -dp
    data-parallel-size-local: -dpl
    data-parallel-start-rank: -dpr
    data-parallel-rank: -dpn
    data-parallel-address: -dpa
    data-parallel-rpc-port: -dpp
    data-parallel-backend: -dpb
    data-parallel-hybrid-lb: -dph
    data-parallel-external-lb: -dpe
    decode-context-parallel-size: -dcp
    prefill-context-parallel-size: -pcp
    enable-expert-parallel: -ep
    quantization: -q
    compilation-config: -O -cc
    attention-config: -ac
    speculative-config: -sc
    nnodes: -n
    node-rank: -r
    """
)

DIALECT = Dialect(
    engine="vllm",
    program="vLLM",
    aliases=_ALIASES,
    mapped_flags=names(
        "enable-expert-parallel enable-chunked-prefill enable-eplb enable-dbo headless "
        "enable-prefix-caching enforce-eager async-scheduling"
    ),
    mapped_values=names(
        """
        model tensor-parallel-size pipeline-parallel-size data-parallel-size
        decode-context-parallel-size prefill-context-parallel-size all2all-backend max-num-seqs
        max-num-batched-tokens max-model-len gpu-memory-utilization block-size kv-cache-dtype
        dtype quantization eplb-config num-redundant-experts compilation-config
        optimization-level cuda-graph-sizes cudagraph-capture-sizes max-cudagraph-capture-size
        speculative-config num-speculative-tokens speculative-model kv-transfer-config
        """
    ),
    silent_flags=names(
        """
        trust-remote-code enable-auto-tool-choice disable-log-requests disable-log-stats
        enable-log-requests disable-uvicorn-access-log enable-prompt-tokens-details
        enable-server-load-tracking enable-request-id-headers return-tokens-as-token-ids
        disable-frontend-multiprocessing allow-credentials enable-sleep-mode enable-reasoning
        skip-tokenizer-init enable-return-routed-experts show-hidden-metrics-for-version
        disable-fastapi-docs enable-force-include-usage use-v2-block-manager
        data-parallel-hybrid-lb data-parallel-external-lb allow-deprecated-quantization
        ray-workers-use-nsight
        enable-log-outputs disable-log-outputs enable-mfu-metrics
        """
    ),
    silent_values=names(
        """
        host port uds api-key served-model-name tokenizer tokenizer-mode revision code-revision
        tokenizer-revision hf-config-path hf-token hf-overrides download-dir load-format seed
        chat-template chat-template-content-format response-role tool-call-parser
        tool-parser-plugin reasoning-parser reasoning-parser-plugin ssl-keyfile ssl-certfile
        ssl-ca-certs root-path middleware allowed-origins allowed-methods allowed-headers
        uvicorn-log-level log-config-file max-log-len otlp-traces-endpoint
        collect-detailed-traces data-parallel-address data-parallel-rpc-port
        data-parallel-backend data-parallel-size-local data-parallel-start-rank
        data-parallel-rank nnodes node-rank master-addr master-port
        distributed-executor-backend worker-cls max-logprobs logits-processors
        generation-config override-generation-config config model-loader-extra-config
        ignore-patterns api-server-count guided-decoding-backend structured-outputs-config
        prefix-caching-hash-algo device runner convert task override-pooler-config
        model-impl safetensors-load-strategy logprobs-mode
        stream-interval allowed-local-media-path allowed-media-domains limit-mm-per-prompt
        mm-processor-kwargs mm-encoder-tp-mode mm-processor-cache-gb default-mm-loras
        max-parallel-loading-workers
        tokens-only distributed-timeout-seconds
        """
    ),
    unmodelled_flags=MappingProxyType(
        {
            "disable-custom-all-reduce": "small all-reduces would take NCCL's time",
            "disable-cascade-attention": "attention to a common prefix",
            "enable-lora": "adapters' products and memory",
            "language-model-only": "encoders of a multimodal model, whose memory is left out",
            "disable-hybrid-kv-cache-manager": "layers with a window would keep all tokens",
            "calculate-kv-scales": "scales of an fp8 cache, worked out while running",
            "disable-sliding-window": "the window of attention",
            "disable-chunked-mm-input": "how inputs that are no text are cut",
            "enable-elastic-ep": "ranks that come and go",
        }
    ),
    unmodelled_values=MappingProxyType(
        {
            "max-seq-len-to-capture": "longer requests would wait for launches",
            "kv-events-config": "events for a router",
            "ec-transfer-config": "encoders on other machines",
            "cpu-offload-gb": "weights that wait in the host's memory",
            "swap-space": "preempted requests that wait in the host's memory (v0 engine)",
            "kv-offloading-size": "blocks of the cache that wait in the host's memory",
            "kv-offloading-backend": "blocks of the cache that wait in the host's memory",
            "num-gpu-blocks-override": "another number of blocks than fits",
            "kv-cache-memory-bytes": "another size of the cache than fits",
            "scheduling-policy": "requests by priority instead of by arrival",
            "max-num-partial-prefills": "several prompts in pieces at the same time",
            "max-long-partial-prefills": "several prompts in pieces at the same time",
            "long-prefill-token-threshold": "a limit on the piece of one prompt in an iteration",
            "num-scheduler-steps": "several steps between two decisions (v0 engine)",
            "num-lookahead-slots": "room for tokens of drafts",
            "scheduler-delay-factor": "prompts would wait for others to come",
            "scheduler-cls": "another scheduler",
            "attention-backend": "which kernel attends; times are those of the profile",
            "attention-config": "which kernel attends; times are those of the profile",
            "moe-backend": "which kernel computes experts; times are those of the profile",
            "kernel-config": "which kernels compute; times are those of the profile",
            "expert-placement-strategy": "which experts lie on a rank",
            "dbo-decode-token-threshold": "from when on two half batches overlap",
            "dbo-prefill-token-threshold": "from when on two half batches overlap",
            "cp-kv-cache-interleave-size": "how ranks share a cache",
            "dcp-kv-cache-interleave-size": "how ranks share a cache",
            "max-loras": "adapters' products and memory",
            "max-lora-rank": "adapters' products and memory",
            "lora-modules": "adapters' products and memory",
            "additional-config": "settings of a plugin",
            "rope-scaling": "another length of context",
            "mamba-ssm-cache-dtype": "the state of linear attention",
            "mamba-cache-dtype": "the state of linear attention",
            "prefill-schedule-interval": "when prompts are taken",
        }
    ),
    glued=frozenset({"-O"}),
    several=names(
        """
        served-model-name middleware allowed-origins api-key cuda-graph-sizes
        cudagraph-capture-sizes lora-modules logits-processors ignore-patterns
        collect-detailed-traces
        """
    ),
)
"""vLLM's arguments."""
