"""vLLM: vllm/engine/arg_utils.py and vllm/config, as far as remembered or read.

Those of 0.33.0 (EngineArgs, get_batch_defaults: the API server's values) are at second hand, from
notes that cite the file by line; what older releases did is from memory, unchecked.
"""

from moesim.study.serving.presets.table import GIB, UNCHECKED, Default, Setting, Version

_CITED = "vllm 0.33.0, vllm/engine/arg_utils.py:2970-3003"


def _large(setting: Setting) -> bool:
    return setting.memory_bytes >= 70 * GIB and not setting.device.startswith("a100")


def _budget(setting: Setting) -> int:
    """Tokens of an iteration: 8192 from 70 GiB on, except on A100, else 2048."""
    return 8192 if _large(setting) else 2048


def _budget_tiers(setting: Setting) -> int:
    return 16384 if setting.memory_bytes >= 160 * GIB else _budget(setting)


def _sequences(setting: Setting) -> int:
    """The budget's A100 rule holds here too; from 160 GiB on as from 70."""
    return 1024 if _large(setting) else 256


VERSIONS = {
    "0.6": Version(
        released="2024-09",
        changes={
            "batching": Default("prefill_first", f"v0 scheduler: prompts first; {UNCHECKED}"),
            "max_sequences": Default(256),
            "token_budget": Default(
                8192, f"max(max_model_len, 2048); assumed: a model length of 8192; {UNCHECKED}"
            ),
            "block_tokens": Default(16),
            "memory_fraction": Default(0.9),
            "memory_of": Default("all"),
            "chunked_prefill": Default(False, f"on only above 32k of model length; {UNCHECKED}"),
            "reserve_output": Default(False),
            "prefix_caching": Default(False),
            "graph_batch": Default(256, f"captured: 1, 2, 4, 8, then every 8 to 256; {UNCHECKED}"),
            "exchange": Default(
                "allgather_reducescatter", f"naive broadcasts: near it; {UNCHECKED}"
            ),
            "async_scheduling": Default(False),
            "habit": Default("a prompt longer than the token budget is refused, not cut"),
        },
    ),
    "0.8": Version(
        released="2025-03",
        changes={
            "batching": Default("mixed", f"v1 scheduler; {UNCHECKED}"),
            "max_sequences": Default(256),
            "token_budget": Default(_budget),
            "chunked_prefill": Default(True),
            "prefix_caching": Default(True),
            "graph_batch": Default(512, f"captured: 1, 2, 4, then every 8 to 512; {UNCHECKED}"),
            "habit": Default(""),
        },
    ),
    "0.10": Version(
        released="2025-07",
        changes={"max_sequences": Default(_sequences)},
    ),
    "0.11": Version(
        released="2025-10",
        changes={"exchange": Default("allgather_reducescatter")},
    ),
    "0.12": Version(
        released="2025-12",
        changes={
            "graph_batch": Default(
                512,
                f"512 at most; the engine stops at 2 * max_num_seqs, which is beyond any batch; "
                f"{UNCHECKED}",
            ),
        },
    ),
    "0.15": Version(
        released="2026-01",
        changes={"async_scheduling": Default(True, f"on by default since 0.14; {UNCHECKED}")},
    ),
    "0.17": Version(released="2026-03", changes={}),
    "0.33": Version(
        released="2026-11",
        changes={
            "token_budget": Default(_budget_tiers, _CITED),
            "max_sequences": Default(_sequences, _CITED),
            "memory_fraction": Default(0.92, "vllm 0.33.0, vllm/engine/arg_utils.py"),
            "prefix_caching": Default(True, "vllm 0.33.0, vllm/engine/arg_utils.py"),
            "exchange": Default(
                "allgather_reducescatter", "vllm 0.33.0, --all2all-backend's default"
            ),
        },
    ),
}
"""Releases, oldest first."""
