"""What a config.json may not be, and what the error says about it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import ModelError
from moesim.model.config_json import MAX_BYTES, architecture_from, read_config
from moesim.model.families import CLASSES, FAMILIES
from tests.unit.model.known_configs import KNOWN


def _changed(name: str, **changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(KNOWN[name].config)
    for key, value in changes.items():
        if value == "absent":
            del config[key]
        else:
            config[key] = value
    return config


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("mixtral-8x7b", {"num_local_experts": "absent"}, "'num_local_experts': is missing"),
        ("mixtral-8x7b", {"hidden_size": None}, "'hidden_size': is missing"),
        ("mixtral-8x7b", {"hidden_size": "4096"}, "must be a whole number, not '4096'"),
        ("mixtral-8x7b", {"hidden_size": -1}, "must be from 1 to"),
        ("mixtral-8x7b", {"hidden_size": 10**40}, "not a huge number"),
        ("mixtral-8x7b", {"hidden_size": True}, "must be a whole number"),
        ("mixtral-8x7b", {"hidden_size": 4096.5}, "must be a whole number"),
        ("mixtral-8x7b", {"num_attention_heads": 0}, "'num_attention_heads': must be from 1"),
        ("mixtral-8x7b", {"num_attention_heads": 31}, "31 heads do not divide 4096"),
        ("mixtral-8x7b", {"num_key_value_heads": 5}, "cannot share 5 key/value heads evenly"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, "top_k 9 is more than the 8 experts"),
        ("mixtral-8x7b", {"num_hidden_layers": 10**8}, "at most 10000"),
        ("mixtral-8x7b", {"tie_word_embeddings": 1}, "must be true or false"),
        ("mixtral-8x7b", {"quantization_config": {"quant_method": "x"}}, "'x' is not modelled"),
        ("mixtral-8x7b", {"quantization_config": "fp8"}, "'quantization_config': must be an obj"),
        ("mixtral-8x7b", {"architectures": "Mixtral"}, "'architectures': must be a list"),
        ("mixtral-8x7b", {"model_type": "mixtrall"}, "Did you mean 'mixtral'?"),
        ("mixtral-8x7b", {"model_type": None}, "'model_type' must be text"),
        ("deepseek-v3", {"topk_group": 9}, "reaches 9 of only 8 groups"),
        ("deepseek-v3", {"n_group": 7}, "do not divide into 7 groups"),
        ("deepseek-v3", {"q_lora_rank": "absent"}, "null means that queries have no low rank"),
        ("glm-5", {"index_topk_freq": 2}, "share an indexer are not modelled"),
        ("dbrx", {"attn_config": None}, "'attn_config': must be an object"),
        ("dbrx", {"ffn_config": {}}, "'ffn_config.moe_num_experts': is missing"),
        ("gpt-oss-20b", {"layer_types": ["full_attention"]}, "1 entries for 24 layers"),
        ("gpt-oss-20b", {"layer_types": ["mamba"] * 24}, "'mamba' is not modelled"),
        ("gpt-oss-20b", {"layer_types": [1] * 24}, "must be a list of texts"),
    ],
)
def test_the_error_names_the_key(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        architecture_from(_changed(name, **changes), name, "config.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith("config.json: ")


def test_no_size_comes_from_a_class_default() -> None:
    # transformers has 8 experts and 4096 channels for the bare model_type
    for model_type in FAMILIES:
        with pytest.raises(ModelError):
            architecture_from({"model_type": model_type}, "bare", "config.json")


def test_class_names_lead_to_families() -> None:
    assert set(CLASSES.values()) <= set(FAMILIES)


def test_auto_map_is_not_followed(tmp_path: Path) -> None:
    config = _changed("mixtral-8x7b", auto_map={"AutoConfig": "configuration_evil.Config"})
    (tmp_path / "configuration_evil.py").write_text("raise SystemExit('followed')")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path).hidden == 4096


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [
        ({}, "bf16"),
        ({"torch_dtype": "float16"}, "fp16"),
        ({"dtype": "float32"}, "fp32"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "int4"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "nvfp4"),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
                }
            },
            "int4",
        ),
    ],
)
def test_how_weights_are_stored(keys: dict[str, Any], dtype: str) -> None:
    architecture = architecture_from(_changed("mixtral-8x7b", **keys), "m", "test")
    assert architecture.weight_dtype == dtype


def test_both_spellings_of_v5_are_read() -> None:
    config = _changed("mixtral-8x7b", num_local_experts="absent", num_experts=8)
    assert architecture_from(config, "m", "test") == architecture_from(
        KNOWN["mixtral-8x7b"].config, "m", "test"
    )


def test_reads_a_file_or_its_directory(tmp_path: Path) -> None:
    folder = tmp_path / "my-mixtral"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(KNOWN["mixtral-8x7b"].config))
    assert read_config(folder) == read_config(folder / "config.json")
    assert read_config(folder).name == "my-mixtral"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"model_type":\n  oops}', ":2:3: not valid JSON"),
        (b"", ":1:1: not valid JSON"),
        (b"[1]", "must be an object"),
        (b'{"model_type": NaN}', "NaN is not a number"),
        (b'{"model_type": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"model_type": "mixtral", "hidden_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * (MAX_BYTES + 1), "larger than 16 MiB"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_config(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "x" * 300, "nul\0"])
def test_unreadable_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        read_config(tmp_path / name)


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.none(), st.integers(-1, 3), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_is_read_or_refused(data: st.DataObject) -> None:
    config = copy.deepcopy(KNOWN[data.draw(st.sampled_from(sorted(KNOWN)))].config)
    for _ in range(data.draw(st.integers(1, 3))):
        part = config
        key = data.draw(st.sampled_from(sorted(part)))
        if isinstance(part[key], dict) and part[key] and data.draw(st.booleans()):
            part = part[key]
            key = data.draw(st.sampled_from(sorted(part)))
        if data.draw(st.booleans()):
            del part[key]
        else:
            part[key] = data.draw(_ODD)
        if not config:
            return
    try:
        architecture_from(config, "fuzzed", "config.json")
    except ModelError as error:
        assert str(error).startswith("config.json: ")
