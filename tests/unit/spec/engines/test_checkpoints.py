"""Names of checkpoints lead to the catalogue's models and to number formats."""

import re

import pytest

from moesim.model.named import named_models
from moesim.spec.engines.checkpoints import FAMILIES, SUFFIXES, checkpoint
from moesim.spec.serving.engine import FormatsSpec

UNPUBLISHED = re.compile(
    r"(deepspeed|fairseq|gshard|maxtext|megablocks|megatron)-.*|turing-530b|gpt3-.*|glam-.*"
    r"|deepseek-moe-145b|mpt-13b|mpt-70b|st-moe-32b|olmo-1b"
)
"""Models of papers without weights on Hugging Face; olmo-1b here is OLMoE's dense ablation."""


@pytest.mark.parametrize(
    ("name", "model", "formats"),
    [
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3", {"weights": "fp8_block128"}),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-v3", {"weights": "fp8_block128"}),
        ("nvidia/DeepSeek-R1-0528-FP4-v2", "deepseek-v3",
         {"weights": "nvfp4", "attention": "bf16"}),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b", {}),
        ("TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ", "mixtral-8x7b",
         {"weights": "int4_weight_only"}),
        ("Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b", {}),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "qwen3-30b-a3b", {"weights": "fp8_block128"}),
        ("nvidia/Qwen3-235B-A22B-NVFP4", "qwen3-235b-a22b", {"weights": "nvfp4"}),
        ("openai/gpt-oss-120b", "gpt-oss-120b", {"experts": "w4a16_mxfp4"}),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b", {}),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b", {}),
        ("neuralmagic/Meta-Llama-3.1-70B-Instruct-FP8", "llama-3.1-70b", {"weights": "fp8"}),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", None, {}),
        ("moonshotai/Kimi-K2-Instruct-0905", "kimi-k2", {"weights": "fp8_block128"}),
        ("Qwen/Qwen3-4B", "qwen3-4b", {}),
        ("someone/Mixtral-8x7B-extra", None, {}),
    ],
)  # fmt: skip
def test_names(name: str, model: str | None, formats: dict[str, str]) -> None:
    found = checkpoint(name)
    if model is None:
        assert found is None
        return
    assert found is not None
    assert (found.model, dict(found.formats)) == (model, formats)


def test_every_published_model_of_the_catalogue_is_reached() -> None:
    published = {name for name in named_models() if not UNPUBLISHED.fullmatch(name)}
    assert {model for _, model, _ in FAMILIES} == published


def test_formats_are_those_of_a_scenario() -> None:
    for *_, formats in (*FAMILIES, *SUFFIXES):
        FormatsSpec.model_validate(dict(formats))
