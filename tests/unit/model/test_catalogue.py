"""The named models against published totals, against config.json files, and their own form."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from moesim.errors import ModelError, ScenarioError
from moesim.model.architecture import Architecture
from moesim.model.config_json import architecture_from, read_config
from moesim.model.consistency import check
from moesim.model.named import ALIASES, load_model, load_named, named_models
from moesim.model.parameters import active_params, routed_expert_params, total_params
from tests.shared_files import shared
from tests.unit.model.known_configs import KNOWN

NOT_WITHIN_ONE_PERCENT = {
    "deepseek-moe-145b": "the widths of an expert and of the dense layer are assumed",
    "deepseek-v2-lite": "published as 16 B; the exact count of its classes is 15.7 B",
    "kimi-k2": "published as 1 T; the exact count of its classes is 1.026 T",
    "llama-4-scout": "the published 109 B include the vision tower",
    "openmoe-34b-32e": "published as 34 B; widths of the paper give 34.6 B",
    "fairseq-moe-15b": "published as 15 B; vocabulary assumed",
    "deepspeed-350m-moe-128": "published as 13 B; vocabulary assumed",
    "glam-64b-64e": "gated dense layers of unstated width are described without gate",
    "switch-base-16": "published as 1.1 B",
    "switch-base-32": "published as 2.0 B",
    **{
        f"gshard-{experts}e-{layers}l": "hidden width and heads are inferred, not published"
        for experts in (128, 512, 2048)
        for layers in (12, 36)
    },
}

CONFIGS = {
    "MiniMaxAI--MiniMax-M2.5": "minimax-m2.5",
    "Qwen--Qwen3-235B-A22B": "qwen3-235b-a22b",
    "Qwen--Qwen3-30B-A3B": "qwen3-30b-a3b",
    "Qwen--Qwen3-32B": "qwen3-32b",
    "Qwen--Qwen3-8B": "qwen3-8b",
    "Qwen--Qwen3-Next-80B-A3B": "qwen3-next-80b-a3b",
    "Qwen--Qwen3.5-35B-A3B": "qwen3.5-35b-a3b",
    "deepseek-ai--DeepSeek-V3": "deepseek-v3",
    "deepseek-ai--DeepSeek-V3.2": "deepseek-v3.2",
    "fixture--DeepSeek-V2-Lite-16B": "deepseek-v2-lite",
    "fixture--GLM-4.5-355B": "glm-4.5",
    "fixture--GLM-4.5-Air-106B": "glm-4.5-air",
    "fixture--Llama-2-70b-hf": "llama-2-70b",
    "fixture--OLMoE-1B-7B": "olmoe-1b-7b",
    "fixture--Qwen2-57B-A14B": "qwen2-57b-a14b",
    "fixture--dbrx-instruct": "dbrx",
    "google--gemma-4-26B-A4B": "gemma-4-26b-a4b",
    "meta-llama--Llama-4-Maverick-17B-128E-Instruct": "llama-4-maverick",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": "llama-4-scout",
    "meta-llama--Meta-Llama-3.1-405B": "llama-3.1-405b",
    "meta-llama--Meta-Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama--Meta-Llama-3.1-8B": "llama-3.1-8b",
    "microsoft--Phi-mini-MoE-instruct": "phi-mini-moe",
    "mistralai--Mixtral-8x22B-v0.1": "mixtral-8x22b",
    "mistralai--Mixtral-8x7B-v0.1": "mixtral-8x7b",
    "moonshotai--Kimi-K2-Instruct": "kimi-k2",
    "openai--gpt-oss-120b": "gpt-oss-120b",
    "openai--gpt-oss-20b": "gpt-oss-20b",
    "zai-org--GLM-5": "glm-5",
}


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [  # as their makers publish them
        ("mixtral-8x22b", 141e9, 39e9),
        ("deepseek-v2", 236e9, 21e9),
        ("deepseek-v3", 671e9, 37e9),
        ("qwen3-235b-a22b", 235e9, 22e9),
        ("dbrx", 132e9, 36e9),
        ("grok-1", 314e9, None),
        ("switch-base-128", 7.41e9, None),
        ("switch-c-2048", 1571e9, None),
        ("switch-xxl-128", 395e9, None),
        ("st-moe-32b", 269e9, None),
        ("nllb-moe-54b", 54.5e9, None),
        ("t5-base", 223e6, 223e6),
        ("gpt3-175b", 175e9, 175e9),
        ("step-3.5-flash", 196.8e9, None),
        ("ministral-3-14b", 13.5e9, None),
        ("qwen2-72b", 72.71e9, None),
        ("qwen2-7b", 7.62e9, None),
    ],
)
def test_published_sizes(name: str, total: float, active: float | None) -> None:
    architecture = load_named(name)
    assert total_params(architecture) == pytest.approx(total, rel=0.01)
    if active is not None:  # makers count embeddings differently
        assert active_params(architecture) == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize(
    ("name", "total"),
    [  # mosaicml/llm-foundry, table of the MPT models
        ("mpt-7b", 6_658_859_008),
        ("mpt-13b", 12_853_954_560),
        ("mpt-30b", 29_975_214_080),
        ("mpt-70b", 64_862_437_376),
    ],
)
def test_exact_sizes_of_mpt(name: str, total: int) -> None:
    assert total_params(load_named(name)) == total


def _facts() -> list[dict[str, Any]]:
    path = shared("model-facts.yaml")
    rows: list[dict[str, Any]] = YAML(typ="safe").load(path)["models"]
    return rows


def _name_of(row: dict[str, Any]) -> str:
    plain = re.sub(r" \((dense|released|text)\)", "", row["name"].lower())
    plain = re.sub(r"gshard moe\((\d+)e,(\d+)l\)", r"gshard-\1e-\2l", plain)
    plain = plain.replace("deepseekmoe", "deepseek-moe").replace("+", "-").replace("/", "-")
    plain = re.sub("[ _]", "-", plain)
    return {"nllb-200-moe-128": "nllb-moe-54b", "t5-xxl-v1.1": "t5-xxl"}.get(plain, plain)


def test_every_model_of_the_table_of_facts() -> None:
    wrong = []
    for row in _facts():
        name = _name_of(row)
        architecture = load_named(name)
        found, computed = total_params(architecture), row["computed_total"]
        if routed_expert_params(architecture) != row["expert_params_total"]:
            wrong.append(f"{name}: routed experts")
        if abs(found / computed - 1) > 1e-4:  # the table leaves out a few norms and positions
            wrong.append(f"{name}: {found} instead of {computed}")
        published: float | None = row.get("published_total")
        far = published is not None and abs(found / published - 1) > 0.01
        if far != (name in NOT_WITHIN_ONE_PERCENT):
            wrong.append(f"{name}: {found} against {published} as published")
    assert not wrong


def _comparable(architecture: Architecture) -> Architecture:
    # The cut-down copies of GLM-4.5 do not mention its multi-token-prediction module.
    mtp = 0 if architecture.name.startswith("glm-4.5") else architecture.mtp_layers
    return replace(architecture, source="", mtp_layers=mtp)


@pytest.mark.parametrize("config", CONFIGS)
def test_equal_to_the_published_config(config: str) -> None:
    imported = read_config(shared(f"hf-configs/{config}.json"))
    named = load_named(CONFIGS[config])
    assert _comparable(replace(imported, name=named.name)) == _comparable(named)


@pytest.mark.parametrize("name", sorted(set(KNOWN) & set(named_models())))
def test_counts_equal_those_of_the_cut_down_configs(name: str) -> None:
    assert total_params(load_named(name)) == KNOWN[name].total


@pytest.mark.parametrize("name", named_models())
def test_every_file_names_itself_and_its_source(name: str) -> None:
    architecture = load_named(name)
    assert architecture.name == name
    assert len(architecture.source) > 10
    check(architecture, name)


def test_aliases_lead_somewhere_new() -> None:
    assert set(ALIASES.values()) <= set(named_models())
    assert not set(ALIASES) & set(named_models())


@pytest.mark.parametrize("name", ["Mixtral-8x7B", "mixtral_8x7b", " mixtral 8x7b", "mixtral"])
def test_spellings(name: str) -> None:
    assert load_model(name).name == "mixtral-8x7b"


def test_llama_3_70b_is_an_alias() -> None:
    assert total_params(load_model("llama-3-70b")) == 70_553_706_496


@pytest.mark.parametrize("name", ["mixtral-8x8b", "", "x" * 5000, "nul\0"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ScenarioError, match="unknown model"):
        load_model(name)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(ScenarioError, match=r"Did you mean 'mixtral-8x7b'\?"):
        load_named("mixtral-8x7")


def test_models_from_paths(tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "moesim/model/catalogue/olmoe-1b-7b.yaml"
    copy = tmp_path / "mine.yaml"
    copy.write_text(source.read_text().replace("layers: 16", "layers: 2"))
    assert load_model(str(copy)).num_layers == 2
    assert load_model(copy).num_layers == 2
    with pytest.raises(ModelError, match="cannot read"):
        load_model(str(tmp_path / "config.json"))
    with pytest.raises(ModelError, match="a model file is"):
        load_model(tmp_path / "weights.bin")
    with pytest.raises(ScenarioError, match="cannot read"):
        load_model(str(tmp_path / "missing.yaml"))


def test_importer_and_catalogue_agree_on_a_dense_twin() -> None:
    config = KNOWN["llama-3.1-8b"].config
    assert architecture_from(config, "llama-3.1-8b", "").decoder == (
        load_named("llama-3.1-8b").decoder
    )
