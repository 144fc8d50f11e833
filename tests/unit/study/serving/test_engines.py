"""Presets of engines by version; expected values are those the tables' sources state."""

from dataclasses import replace

import pytest

from moesim.hardware.device import Device, device
from moesim.hardware.profiles import load_accelerator
from moesim.spec.serving.parallel import ServingParallelSpec
from moesim.spec.validate import read_document
from moesim.study.serving.engines import preset_of
from moesim.study.serving.presets.lookup import ENGINES, known_version, published_engine
from tests.shared_files import shared

H100 = device(load_accelerator("h100-sxm"))


def of_gib(gib: float, name: str = "made-up") -> Device:
    return replace(H100, name=name, memory_capacity_bytes=gib * 2**30)


@pytest.mark.parametrize(
    ("gib", "name", "budget", "sequences"),
    [
        (180, "b200", 16384, 1024),
        (80, "h100", 8192, 1024),
        (80, "a100-sxm-80gb", 2048, 256),
        (48, "l40s", 2048, 256),
    ],
)
def test_vllm_by_memory(gib: float, name: str, budget: int, sequences: int) -> None:
    """Tiers of vllm/engine/arg_utils.py:2970-3003 of 0.33.0."""
    found = preset_of("vllm", of_gib(gib, name))
    assert (found.token_budget, found.max_sequences) == (budget, sequences)
    assert found.memory_fraction == 0.92


def test_versions_differ_where_the_engine_changed() -> None:
    v0, v1 = preset_of("vllm", H100, "0.6.3"), preset_of("vllm", H100, "0.8.4")
    assert (v0.batching, v1.batching) == ("prefill_first", "mixed")
    assert (v0.prefix_caching, v1.prefix_caching) == (False, True)
    assert preset_of("vllm", H100, "0.8.4").max_sequences == 256
    assert preset_of("vllm", H100, "0.10.2").max_sequences == 1024
    assert preset_of("vllm", H100, "0.15.1").memory_fraction == 0.9
    old, new = (preset_of("tensorrt-llm", H100, one) for one in ("0.14.0", "1.0.0rc3"))
    assert (old.block_tokens, new.block_tokens) == (64, 32)


def test_sglang_s_formula_by_hand() -> None:
    """80 GiB, one rank: 1.5 * 8192 + 2 * 256 + 128 = 12928 MiB of 81920; tp 8: 14336 MiB."""
    assert preset_of("sglang", of_gib(80)).memory_fraction == pytest.approx(
        1 - 12928 / 81920, abs=6e-4
    )
    eight = preset_of("sglang", of_gib(80), None, ServingParallelSpec(tp=8))
    assert eight.graph_batch == 512
    assert eight.memory_fraction == pytest.approx(1 - 14336 / 81920, abs=6e-4)
    early = preset_of("sglang", of_gib(80), "0.4.6.post1", ServingParallelSpec(tp=8))
    assert early.memory_fraction == 0.81


def test_attention_ranks_share_sglang_s_chunk() -> None:
    assert preset_of("sglang", of_gib(80), None, ServingParallelSpec(dp=8)).token_budget == 1024


@pytest.mark.parametrize(
    ("name", "version", "stands"),
    [
        ("vllm", "0.19.0", "0.17"),
        ("vllm", "v0.11.0", "0.11"),
        ("vllm", None, "0.33"),
        ("sglang", "0.5.8.post1", "0.5.6"),
        ("tensorrt-llm", "1.2.0rc6.post2", "1.2"),
    ],
)
def test_the_last_known_release_stands_for_others(
    name: str, version: str | None, stands: str
) -> None:
    found = known_version(name, version)
    assert found.version == stands
    exact = version is None or version.lstrip("v").startswith(stands)
    assert bool(found.note) != exact


@pytest.mark.parametrize("version", ["latest", "0.1.0", "nightly-5b8c30d"])
def test_versions_that_nothing_stands_for(version: str) -> None:
    with pytest.raises(ValueError, match="known"):
        known_version("vllm", version)


@pytest.mark.parametrize(
    ("name", "words", "engine", "stands"),
    [
        ("vllm", "unrecorded-2025-10", "vllm", "0.11"),
        ("vllm (not seen)", None, "vllm", "0.33"),
        ("sglang", "2025-05", "sglang", "0.4.6"),
        ("trtllm under NVIDIA Dynamo", "0.8.1.post1", "tensorrt-llm", "1.1"),
        ("TensorRT-LLM (MLPerf harness)", "MLPerf Inference v4.1", "tensorrt-llm", "0.14"),
        ("tensorrt-llm (PyTorch backend)", "1.0", "tensorrt-llm", "1.0"),
    ],
)
def test_words_of_publications(name: str, words: str | None, engine: str, stands: str) -> None:
    found = published_engine(name, words)
    assert found is not None
    assert (found[0], found[1].version) == (engine, stands)


def test_other_engines_have_no_preset() -> None:
    assert published_engine("HF transformers", None) is None


def test_every_published_version_finds_a_release() -> None:
    cases = read_document(shared("published/inference.yaml")).data["cases"]
    engines = [case["engine"] for case in cases if case.get("engine")]
    found = [published_engine(str(one["name"]), one.get("version")) for one in engines]
    assert len([one for one in found if one]) > 200


def test_every_release_has_every_default_with_a_source() -> None:
    for name, releases in ENGINES.items():
        for version in releases:
            found = preset_of(name, H100, version)
            assert found.resolved
            assert all(one.source for one in found.resolved), (name, version)
