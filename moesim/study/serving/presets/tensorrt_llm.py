"""TensorRT-LLM: tensorrt_llm/llmapi/llm_args.py (PyTorch backend), trtllm-build before it.

All from memory, unchecked.
"""

from moesim.study.serving.presets.table import UNCHECKED, Default, Version

_ARGS = "llmapi/llm_args.py"

VERSIONS = {
    "0.14": Version(
        released="2024-11",
        changes={
            "batching": Default("whole_prompts", f"in-flight batching of C++; {UNCHECKED}"),
            "max_sequences": Default(2048, f"trtllm-build, max_batch_size; {UNCHECKED}"),
            "token_budget": Default(8192, f"trtllm-build, max_num_tokens; {UNCHECKED}"),
            "block_tokens": Default(64, f"trtllm-build, tokens_per_block; {UNCHECKED}"),
            "memory_fraction": Default(0.9, f"free_gpu_memory_fraction; {UNCHECKED}"),
            "memory_of": Default("free", f"of what the engine leaves; {UNCHECKED}"),
            "chunked_prefill": Default(False, f"enable_chunked_context; {UNCHECKED}"),
            "reserve_output": Default(True, f"guaranteed_no_evict; {UNCHECKED}"),
            "prefix_caching": Default(False, f"enable_block_reuse; {UNCHECKED}"),
            "graph_batch": Default(0, f"no CUDA graphs by default; {UNCHECKED}"),
            "exchange": Default("allgather_reducescatter"),
            "async_scheduling": Default(False),
            "habit": Default(""),
        },
    ),
    "1.0": Version(
        released="2025-09",
        changes={
            "block_tokens": Default(32, f"{_ARGS}, tokens_per_block; {UNCHECKED}"),
            "max_sequences": Default(2048, f"{_ARGS}, max_batch_size; {UNCHECKED}"),
            "token_budget": Default(8192, f"{_ARGS}, max_num_tokens; {UNCHECKED}"),
            "prefix_caching": Default(True, f"{_ARGS}, enable_block_reuse; {UNCHECKED}"),
            "graph_batch": Default(128, f"{_ARGS}, CudaGraphConfig, max_batch_size; {UNCHECKED}"),
            "async_scheduling": Default(True, f"overlap scheduler; {UNCHECKED}"),
        },
    ),
    "1.1": Version(released="2025-11", changes={}),
    "1.2": Version(released="2026-02", changes={}),
}
"""Releases, oldest first."""
