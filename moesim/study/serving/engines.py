"""Engines by name and version: what they do where a user says nothing."""

from dataclasses import dataclass
from typing import Literal

from moesim.cost.serving.capacity import MemoryOf
from moesim.hardware.device import Device
from moesim.sim.serving.rules import Batching

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The defaults of an engine, with where they are read."""

    name: str
    version: str
    software: str
    """The software profile that holds its kernels and host times."""
    batching: Batching
    max_sequences: int
    token_budget: int
    block_tokens: int
    memory_fraction: float
    """Share of the device memory that the engine takes."""
    memory_of: MemoryOf
    """What `memory_fraction` is a share of."""
    reserve_output: bool
    graph_sizes: tuple[int, ...]
    """Numbers of tokens for which graphs are captured."""
    graphs_hold_prompts: bool
    """Whether iterations with prompts run in graphs too."""
    exchange: Literal["all_reduce", "allgather_reducescatter"]
    source: str


def vllm(device: Device) -> Preset:
    """Return vLLM's defaults, which depend on the memory of the device.

    Source: vllm/engine/arg_utils.py of 0.33.0 (EngineArgs, get_batch_defaults): API server.
    """
    memory = device.memory_capacity_bytes
    budget, sequences = 2048, 1024
    if memory >= 160 * _GIB:
        budget = 16384
    elif memory >= 70 * _GIB and not device.name.startswith("a100"):
        budget = 8192
    else:
        sequences = 256
    return Preset(
        name="vllm", version="0.33.0", software="vllm", batching="mixed",
        max_sequences=sequences, token_budget=budget, block_tokens=16, memory_fraction=0.92,
        memory_of="all", reserve_output=False, exchange="allgather_reducescatter",
        graph_sizes=vllm_graphs(sequences), graphs_hold_prompts=True,
        source="vllm 0.33.0, vllm/engine/arg_utils.py",
    )  # fmt: skip


def vllm_graphs(sequences: int) -> tuple[int, ...]:
    """Return the sizes that vLLM captures: up to twice the sequences, 512 at most.

    1, 2, 4, then in eights up to 256 and in sixteens beyond (vllm/config/vllm.py,
    _set_cudagraph_sizes; from memory, unchecked).
    """
    most = min(2 * sequences, 512)
    sizes = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))
    return tuple(size for size in sizes if size <= most)


def sglang(device: Device) -> Preset:
    """Return SGLang's defaults.

    Source: sglang 0.5.23 server_args.py: chunked_prefill_size 8192 on 80 GB devices and 16384 on
    larger ones, page_size 1; mem_fraction_static depends on the layout, its usual value is taken;
    graphs for decoding up to 256 sequences (from memory, unchecked).
    """
    large = device.memory_capacity_bytes >= 160 * _GIB
    return Preset(
        name="sglang", version="0.5.23", software="sglang", batching="prefill_first",
        max_sequences=2048, token_budget=16384 if large else 8192, block_tokens=1,
        memory_fraction=0.88, memory_of="static", reserve_output=False, exchange="all_reduce",
        graph_sizes=(1, 2, 4, 8, 12, *range(16, 257, 8)), graphs_hold_prompts=False,
        source="sglang 0.5.23, server_args.py",
    )  # fmt: skip


def tensorrt_llm(device: Device) -> Preset:
    """Return TensorRT-LLM's defaults of the PyTorch backend.

    Source: tensorrt_llm/llmapi/llm_args.py: max_batch_size 2048, max_num_tokens 8192,
    tokens_per_block 32, free_gpu_memory_fraction 0.9; the scheduler guarantees that nobody is
    evicted; graphs up to the largest batch (from memory, unchecked).
    """
    del device
    return Preset(
        name="tensorrt-llm", version="1.2", software="tensorrt-llm", batching="whole_prompts",
        max_sequences=2048, token_budget=8192, block_tokens=32, memory_fraction=0.9,
        memory_of="free", reserve_output=True, exchange="all_reduce",
        graph_sizes=(1, 2, 4, *range(8, 129, 8), 256, 512, 1024, 2048), graphs_hold_prompts=False,
        source="TensorRT-LLM 1.2, llmapi/llm_args.py",
    )  # fmt: skip


PRESETS = {"vllm": vllm, "sglang": sglang, "tensorrt-llm": tensorrt_llm}
"""The engines by name."""
