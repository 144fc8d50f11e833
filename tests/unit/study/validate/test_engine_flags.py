"""Flags of engines in free text: each expected value is read off the text by hand."""

from typing import Any

import pytest

from moesim.spec.serving.engine import EngineSpec, FormatsSpec
from moesim.spec.validate import read_document
from moesim.study.validate.engine_flags import FlagsRead, read_flags, read_precision
from tests.shared_files import shared

_AT_WORK = "max_model_len 4096, gpu_mem_util 0.9, chunked prefill and prefix caching on"
TEXTS: list[tuple[str, dict[str, Any], dict[str, str], dict[str, Any]]] = [
    (
        "max_num_batched_tokens 8192, max_num_seqs=concurrency, gpu_mem_util 0.9, prefix cache "
        "off, MXFP4 via Marlin (w4a16), KV auto(bf16)",
        {
            "token_budget": 8192,
            "max_sequences": 64,
            "memory_fraction": 0.9,
            "prefix_caching": False,
        },
        {"experts": "w4a16_mxfp4", "cache": "bf16"},
        {},
    ),
    (
        "radix cache off, chunked prefill 32768, mem_fraction 0.82",
        {"token_budget": 32768, "memory_fraction": 0.82, "prefix_caching": False},
        {},
        {},
    ),
    (
        f"max_num_seqs 128, max_num_batched_tokens 2048, {_AT_WORK}",
        {
            "max_sequences": 128,
            "token_budget": 2048,
            "memory_fraction": 0.9,
            "max_model_tokens": 4096,
            "prefix_caching": True,
        },
        {},
        {},
    ),
    (
        "2588 KV blocks of 16, max_num_seqs 256, max_model_len 32768",
        {"block_tokens": 16, "max_sequences": 256, "max_model_tokens": 32768},
        {},
        {"cache_blocks": 2588},
    ),
    (
        "KV fp8, max_num_batched_tokens 2*ISL, gpu_mem_util 0.90",
        {"token_budget": 2000, "memory_fraction": 0.9},
        {"cache": "fp8"},
        {},
    ),
    (
        "KV fp8, cuda-graph batch 128, free_gpu_memory_fraction 0.75",
        {"memory_fraction": 0.75},
        {"cache": "fp8"},
        {"graph_batch": 128},
    ),
    ("async scheduling", {"async_scheduling": True}, {}, {}),
    ("defaults (radix cache on, random prompts)", {"prefix_caching": True}, {}, {}),
]


@pytest.mark.parametrize(("text", "engine", "formats", "features"), TEXTS)
def test_a_text_says(
    text: str, engine: dict[str, Any], formats: dict[str, str], features: dict[str, Any]
) -> None:
    read = read_flags(text, 64, prompt_tokens=1000)
    assert (read.engine, read.formats, read.features, read.assumed) == (
        engine,
        formats,
        features,
        [],
    )


def test_what_has_no_effect_is_an_assumption() -> None:
    read = read_flags("max_batch 512, TRTLLM MoE backend, frobnicate 3")
    assert read.engine == {"max_sequences": 512}
    assert read.assumed == [
        "TRTLLM MoE backend: which kernel is used; times are those of the profile",
        "engine flag not understood, default taken: frobnicate 3",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MTP 3 speculative tokens", "how many are accepted is not stated: plain decoding"),
        ("stream_interval 10 (fp4) / 30 (fp8)", "not modelled: each token is sent alone"),
        ("max_concurrency 5120", "not used: the row says what is in flight"),
    ],
)
def test_what_is_known_and_has_no_key_is_an_assumption(text: str, words: str) -> None:
    read = read_flags(text)
    assert (read.engine, read.features) == ({}, {})
    assert read.assumed[0].startswith(f"{text}: {words}")


def test_missing_row_values_are_assumptions() -> None:
    read = read_flags("max_num_seqs=concurrency, max_num_batched_tokens 2*ISL")
    assert read.engine == {}
    assert len(read.assumed) == 2


@pytest.mark.parametrize(("mode", "sequences"), [("server", 1200), ("offline", 3072)])
def test_offline_and_server_sides(mode: Any, sequences: int) -> None:
    text = "batch 3072 offline / 1200 server, max_num_tokens 8192"
    read = read_flags(text, mode=mode)
    assert read.engine == {"max_sequences": sequences, "token_budget": 8192}
    assert read.assumed == []
    assert read_flags(text).assumed == ["batch 3072 offline / 1200 server: offline taken"]


def test_precision_words() -> None:
    assert read_precision({"weights": "nvfp4, KV fp8"}).formats == {
        "weights": "nvfp4", "cache": "fp8",
    }  # fmt: skip
    mixed = read_precision({"weights": "mxfp4 experts, bf16 rest"})
    assert mixed.formats == {"weights": "bf16", "experts": "w4a16_mxfp4"}
    guess = read_precision({"weights": "fp8", "kv": "fp8 (not stated per row)"})
    assert guess.formats == {"weights": "fp8", "cache": "fp8"}
    assert guess.assumed == ["cache in fp8: the source says 'fp8 (not stated per row)'"]
    assert read_precision({"weights": "unrecorded"}).assumed
    assert read_precision(None) == FlagsRead()


def test_every_published_text_is_understood() -> None:
    cases = read_document(shared("published/inference.yaml")).data["cases"]
    texts = {(case.get("engine") or {}).get("flags") for case in cases} - {None}
    assert len(texts) > 20
    for text in texts:
        read = read_flags(text, 8, prompt_tokens=100)
        assert not [line for line in read.assumed if "not understood" in line], text
        EngineSpec.model_validate(read.engine)
        FormatsSpec.model_validate(read.formats)
