"""Every family counts to the integer, without reference data and with it."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from moesim.errors import ModelError
from moesim.model.architecture import GroupedQueryAttention, LinearAttention, MoeFfn, layers_of
from moesim.model.config_json import architecture_from, read_config
from moesim.model.parameters import (
    active_params,
    embedding_params,
    routed_expert_params,
    total_params,
)
from tests.shared_files import shared
from tests.unit.model.known_configs import KNOWN

UNSUPPORTED = {
    "deepseek-ai--DeepSeek-V4-Flash": "compress_ratios",  # compressed attention, hyper-connections
}


@pytest.mark.parametrize("name", KNOWN)
def test_exact_counts(name: str) -> None:
    known = KNOWN[name]
    architecture = architecture_from(known.config, name, "test")
    assert total_params(architecture) == known.total
    assert routed_expert_params(architecture) == known.routed
    assert active_params(architecture) == known.active


def _rows() -> Iterator[tuple[Path, dict[str, str]]]:
    table = shared("hf-configs/param_counts.csv")
    with table.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            yield table.parent / f"{row['config']}.json", row


def test_every_row_of_the_reference_table() -> None:
    wrong = []
    for path, row in _rows():
        if row["config"] in UNSUPPORTED:
            continue
        architecture = read_config(path)
        vision = int(row["vision_params"])
        expected = [int(row["total_params"]) - vision, int(row["routed_expert_params"])]
        found = [total_params(architecture), routed_expert_params(architecture)]
        if row["top_k"] or not int(row["routed_expert_params"]):
            # the table has no active parameters for classes without a top-k key
            expected.append(int(row["active_params_incl_embeddings"]) - vision)
            found.append(active_params(architecture))
        if row["embedding_params"] != "0" and not vision:
            expected.append(int(row["embedding_params"]))
            found.append(embedding_params(architecture))
        if found != expected:
            wrong.append(f"{row['config']}: {found} instead of {expected}")
    assert not wrong


def test_unsupported_rows_name_the_key() -> None:
    for path, row in _rows():
        if row["config"] in UNSUPPORTED:
            with pytest.raises(ModelError, match=UNSUPPORTED[row["config"]]):
                read_config(path)


def test_gpt_oss_alternates_windows() -> None:
    architecture = architecture_from(KNOWN["gpt-oss-20b"].config, "gpt-oss", "test")
    windows = [
        layer.attention.window
        for layer in layers_of(architecture.decoder)
        if isinstance(layer.attention, GroupedQueryAttention)
    ]
    assert windows == [128, None] * 12


def test_llama_4_interleaves_experts_and_full_attention() -> None:
    architecture = architecture_from(KNOWN["llama-4-maverick"].config, "maverick", "test")
    layers = list(layers_of(architecture.decoder))
    assert [isinstance(layer.ffn, MoeFfn) for layer in layers] == [False, True] * 24
    windows = [
        layer.attention.window
        for layer in layers
        if isinstance(layer.attention, GroupedQueryAttention)
    ]
    assert windows == [8192, 8192, 8192, None] * 12


def test_qwen3_next_has_softmax_in_every_fourth_layer() -> None:
    architecture = architecture_from(KNOWN["qwen3-next-80b-a3b"].config, "next", "test")
    linear = [isinstance(x.attention, LinearAttention) for x in layers_of(architecture.decoder)]
    assert linear == [True, True, True, False] * 12


def test_deepseek_v3_keeps_its_groups_and_its_mtp_module() -> None:
    architecture = architecture_from(KNOWN["deepseek-v3"].config, "v3", "test")
    moe = architecture.decoder[-1].layer.ffn
    assert isinstance(moe, MoeFfn)
    assert (moe.groups, moe.groups_per_token, moe.shared_width) == (8, 4, 2048)
    assert architecture.mtp_layers == 1


def test_minimax_text_01_comes_to_the_published_456_billion() -> None:
    # MiniMax-01 report (arXiv 2501.08313): 456 billion parameters, of which 45.9 billion work on
    # a token; that second figure leaves out both embedding tables.
    config = {
        "model_type": "minimax",
        "hidden_size": 6144,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 9216,
        "num_local_experts": 32,
        "num_experts_per_tok": 2,
        "vocab_size": 200064,
        "attn_type_list": ([0] * 7 + [1]) * 10,
    }
    architecture = architecture_from(config, "minimax-text-01", "test")
    assert total_params(architecture) == pytest.approx(456e9, rel=0.002)
    without_tables = active_params(architecture) - 2 * embedding_params(architecture)
    assert without_tables == pytest.approx(45.9e9, rel=0.002)
