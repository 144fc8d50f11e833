"""Numbers of sequences for which engines capture CUDA graphs."""

from collections.abc import Callable

_SIZES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "vllm": lambda _: (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16)),
    "sglang": lambda most: (1, 2, 4, 8, 12, *range(16, most + 1, 8)),
    "tensorrt-llm": lambda _: (1, 2, 4, *range(8, 129, 8), 256, 512, 1024, 2048),
}
"""vLLM: vllm/config/vllm.py, _set_cudagraph_sizes; SGLang: cuda_graph_runner.py,
get_batch_sizes_to_capture; TensorRT-LLM: llmapi/llm_args.py, CudaGraphConfig, whose padding is
taken to be on (it is off unless asked for, and published runs ask). From memory, unchecked."""


def captured(engine: str, largest: int) -> tuple[int, ...]:
    """Return the sizes up to `largest`, which is one itself; none where it is 0."""
    sizes = tuple(size for size in _SIZES[engine](largest) if size < largest)
    return (*sizes, largest) if largest else ()
