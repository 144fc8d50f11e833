"""From the words for a model, and changes of it, to an architecture."""

from typing import Any

import pytest

from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    GroupedQueryAttention,
    LatentAttention,
    MoeFfn,
    layers_of,
)
from moesim.model.named import load_named
from moesim.study.validate.models import architecture
from moesim.study.validate.skipped import SkippedError
from tests.unit.study.validate.made_up import MODELS, case, case_file


def _network(model: str, described: dict[str, Any] | None = None, **changes: Any) -> Architecture:
    models = MODELS if described is None else {model: described}
    return architecture(case(model=model, model_overrides=changes), case_file(models))


def test_experts_after_the_first_dense_layers() -> None:
    network = _network("tiny-moe")
    ffns = [layer.ffn for layer in layers_of(network.decoder)]
    assert ffns[0] == DenseFfn(width=2048, gated=True)
    assert len(ffns) == 4
    for ffn in ffns[1:]:
        assert isinstance(ffn, MoeFfn)
        assert (ffn.num_experts, ffn.top_k, ffn.expert_width) == (8, 2, 512)
        assert ffn.shared_width == 256
    attention = next(layers_of(network.decoder)).attention
    assert isinstance(attention, GroupedQueryAttention)
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (8, 2, 128)


def test_latent_attention_with_an_extra_layer_and_tied_tables() -> None:
    network = _network("tiny-mla")
    attention = next(layers_of(network.decoder)).attention
    assert isinstance(attention, LatentAttention)
    assert (attention.q_lora_rank, attention.kv_lora_rank) == (96, 64)
    assert (attention.qk_nope_head_dim, attention.qk_rope_head_dim) == (32, 16)
    assert (network.mtp_layers, network.tied_embeddings) == (1, True)


def test_encoder_decoder_has_as_many_layers_on_both_sides() -> None:
    network = _network("tiny-t5")
    assert len(list(layers_of(network.encoder))) == len(list(layers_of(network.decoder))) == 2


def test_every_second_layer_has_experts() -> None:
    network = _network("tiny-moe", dense_first_layers=0, moe_every=2)
    kinds = [isinstance(layer.ffn, MoeFfn) for layer in layers_of(network.decoder)]
    assert sum(kinds) == 2
    assert kinds[0] is not kinds[1]


def test_overrides_replace_what_the_file_says() -> None:
    network = _network("tiny-moe", layers=2, dense_first_layers=0, experts=16)
    ffns = [layer.ffn for layer in layers_of(network.decoder)]
    assert [isinstance(ffn, MoeFfn) and ffn.num_experts for ffn in ffns] == [16, 16]


def test_heads_of_their_own_follow_the_heads_and_shared_ones_do_not() -> None:
    plain = {**MODELS["tiny-moe"], "attn": {"heads": 8, "kv_heads": 8, "head_dim": 128}}
    own = next(layers_of(_network("plain", plain, heads=4).decoder)).attention
    shared = next(layers_of(_network("tiny-moe", heads=4).decoder)).attention
    assert isinstance(own, GroupedQueryAttention)
    assert isinstance(shared, GroupedQueryAttention)
    assert (own.heads, own.kv_heads) == (4, 4)
    assert (shared.heads, shared.kv_heads) == (4, 2)


def test_overrides_leave_the_file_as_it_was() -> None:
    before = repr(MODELS)
    _network("tiny-moe", heads=4, layers=2)
    assert repr(MODELS) == before


def test_model_that_the_file_does_not_describe_is_one_of_the_catalogue() -> None:
    assert _network("mixtral-8x7b", {"cls": "moe"}) == load_named("mixtral-8x7b")
    with pytest.raises(SkippedError, match="so it cannot be changed"):
        _network("mixtral-8x7b", {"cls": "moe"}, layers=2)


def test_unknown_model_is_a_reason_with_a_hint() -> None:
    with pytest.raises(SkippedError, match="Did you mean 'mixtral-8x7b'"):
        _network("mixtral-8x7", {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layers": "four"}, "layers as a whole number from 1 on, not 'four'"),
        ({"layers": True}, "layers as a whole number"),
        ({"top_k": None}, "top_k as a whole number from 1 on, not 'None'"),
        ({"moe_every": 0}, "moe_every as a whole number from 1 on, not '0'"),
        ({"attn": {"kv_heads": 2}}, "heads as a whole number from 1 on, which is not there"),
        ({"attn": {"type": "mla", "heads": 4}}, "kv_lora as a whole number"),
        ({"hidden": [1]}, "hidden"),
        ({"top_k": 9}, "top_k"),
        ({"dense_ffn": 0}, "ffn"),
    ],
)
def test_descriptions_that_make_no_sense_are_reasons(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SkippedError, match=reason):
        _network("tiny-moe", MODELS["tiny-moe"] | change)
