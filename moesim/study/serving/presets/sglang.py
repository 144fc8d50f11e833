"""SGLang: python/sglang/srt/server_args.py and managers/schedule_policy.py.

The table by device memory and the formula of mem_fraction_static are from memory, unchecked.
"""

from moesim.study.serving.presets.table import GIB, MIB, UNCHECKED, Default, Setting, Version

_TIERS = ((20, 2048, 8, 8), (35, 2048, 24, 80), (60, 4096, 32, 160), (160, 8192, 256, 512))
"""GiB below which it holds, tokens of a chunk, largest CUDA graph below 4 ranks and from there on.
"""


def _tier(setting: Setting) -> tuple[int, int]:
    for below, chunk, few, many in _TIERS:
        if setting.memory_bytes < below * GIB:
            return chunk, few if setting.tp * setting.dp < 4 else many
    return 16384, 512


def _chunk(setting: Setting) -> int:
    """Tokens of a chunk; attention data parallel ranks share them."""
    return max(1, _tier(setting)[0] // setting.dp)


def _chunk_early(setting: Setting) -> int:
    return max(1, (2048 if setting.memory_bytes < 25e9 else 8192) // setting.dp)


def _graph(setting: Setting) -> int:
    return _tier(setting)[1]


def _fraction_early(setting: Setting) -> float:
    """By all tensor parallel ranks, which under attention data parallel are tp * dp."""
    ranks = setting.tp * setting.dp
    table = ((16, 0.79), (8, 0.81), (4, 0.85), (2, 0.87), (1, 0.88))
    return next(fraction for least, fraction in table if ranks >= least)


def _fraction(setting: Setting) -> float:
    """What reserved memory leaves: 1 - (1.5 chunk + 2 graph + ranks / 8 * 1024) MiB / memory.

    ranks = tp * pp of SGLang's own words, where attention data parallel ranks are a part of tp; at
    least 10 GiB from 60 GiB of memory on; 3 MiB more per graph row and attention rank (4.5 from
    300 rows on).
    """
    chunk, graph = _tier(setting)
    reserved = 1.5 * chunk + 2.0 * graph + setting.tp * setting.dp * setting.pp / 8 * 1024
    if setting.dp > 1:
        reserved += graph * setting.dp * (4.5 if graph > 300 else 3.0)
    memory = setting.memory_bytes / MIB
    if memory > 60 * 1024:
        reserved = max(reserved, 10 * 1024.0)
    return round((memory - reserved) / memory, 3)


def _running(setting: Setting) -> int:
    """Attention data parallel ranks share the requests."""
    return max(1, 2048 // setting.dp)


VERSIONS = {
    "0.4.6": Version(
        released="2025-04",
        changes={
            "batching": Default("prefill_first"),
            "max_sequences": Default(
                _running, f"cache tokens / model length * 512, within 2048 and 4096; {UNCHECKED}"
            ),
            "token_budget": Default(_chunk_early, f"chunked_prefill_size; {UNCHECKED}"),
            "block_tokens": Default(1, f"page_size; {UNCHECKED}"),
            "memory_fraction": Default(
                _fraction_early, f"mem_fraction_static by tensor parallel size; {UNCHECKED}"
            ),
            "memory_of": Default("static", "weights and cache; activations come on top"),
            "chunked_prefill": Default(True),
            "reserve_output": Default(False),
            "prefix_caching": Default(True, f"radix cache; {UNCHECKED}"),
            "graph_batch": Default(160, f"cuda_graph_max_bs; {UNCHECKED}"),
            "exchange": Default("allgather_reducescatter"),
            "async_scheduling": Default(True, f"overlap schedule; {UNCHECKED}"),
            "habit": Default(
                "a prompt is taken while a share of the outputs still to come is expected to fit "
                "(new_token_ratio 0.7, falling); who has put out the least is retracted first"
            ),
        },
    ),
    "0.5.6": Version(
        released="2025-12",
        changes={
            "token_budget": Default(_chunk, f"chunked_prefill_size by device memory; {UNCHECKED}"),
            "memory_fraction": Default(_fraction, f"mem_fraction_static's formula; {UNCHECKED}"),
            "graph_batch": Default(_graph, f"cuda_graph_max_bs by device memory; {UNCHECKED}"),
        },
    ),
    "0.5.9": Version(released="2026-02", changes={}),
    "0.5.23": Version(released="2026-11", changes={}),
}
"""Releases, oldest first."""
