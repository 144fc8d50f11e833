"""What `moesim explain` knows about keys."""

from collections.abc import Iterator

import pytest

from moesim.errors import ScenarioError
from moesim.spec.explain import Key, find, tree


def flat(keys: tuple[Key, ...]) -> Iterator[Key]:
    for key in keys:
        yield key
        yield from flat(key.keys)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("parallel.ep", "parallel.ep"),
        ("ep", "parallel.ep"),
        (" ep. ", "parallel.ep"),
        ("training.recompute", "training.recompute"),
        ("recompute", "training.recompute"),
        ("optimizer.kind", "training.optimizer.kind"),
        ("extends", "extends"),
        ("cluster", "cluster"),
        ("cluster.devices", "cluster.devices"),
        ("cluster-profile", "cluster-profile"),
        ("cluster-profile.scale_up.bandwidth", "cluster-profile.scale_up.bandwidth"),
        ("scale_up.bandwidth", "cluster-profile.scale_up.bandwidth"),
        ("accelerator", "accelerator"),
        ("accelerator.peak.bf16", "accelerator.peak.bf16"),
        ("accelerator.bf16", "accelerator.peak.bf16"),
        ("bf16", "accelerator.peak.bf16"),
        ("accelerator.peak.bf16.value", "accelerator.peak.bf16.value"),
        ("model", "model"),
        ("model.hidden", "model.hidden"),
        ("model.num_experts", "model.moe.num_experts"),
        ("num_experts", "model.moe.num_experts"),
        ("model.attention.kv_lora_rank", "model.attention.kv_lora_rank"),
        ("software.efficiency.gemm", "software.efficiency.gemm"),
        ("overlapped", "software.efficiency.overlapped"),
    ],
)
def test_a_key_is_found_by_its_path_or_by_its_end(words: str, path: str) -> None:
    assert find(words).path == path


def test_a_key_says_type_limits_default_and_docstring() -> None:
    ep = find("ep")
    assert ep.text == "Expert parallel: ranks over which the experts of a layer are spread."
    assert ep.kind == "whole number, at least 1 and at most 100000"
    assert ep.default == "1"
    assert ep.also == ("baseline.parallel.ep",)
    assert ep.name == "ep"


@pytest.mark.parametrize(
    ("words", "kind", "default", "allowed", "example"),
    [
        ("cluster.price", "quantity with its unit", "none", (), "2.95 USD/h"),
        ("cluster.profile", "text", None, (), ""),
        ("training.precision", "one word of those allowed", "bf16", ("bf16", "fp16", "fp8"), ""),
        ("training.overlap.grad_reduce", "true or false", "true", (), ""),
        ("cluster.oversubscription", "number, at least 1 and at most 1000", "none", (), ""),
        ("seed", "whole number, at least 0 and at most 9223372036854775808", "0", (), ""),
        ("routing", "keys below", "that of each key below", (), ""),
        ("model.attention.kind", "one word of those allowed", None, ("gqa", "mla", "linear"), ""),
    ],
)
def test_types_are_told_in_words(
    words: str, kind: str, default: str | None, allowed: tuple[str, ...], example: str
) -> None:
    key = find(words)
    assert (key.kind, key.default, key.example) == (kind, default, example)
    assert key.allowed[: len(allowed)] == allowed


def test_recompute_names_its_words_and_its_modules() -> None:
    key = find("recompute")
    assert key.allowed[:2] == ("none", "full")
    assert "moe_act" in key.allowed[2]
    assert key.default == "none"


def test_a_figure_shows_how_it_is_written() -> None:
    key = find("accelerator.peak.bf16")
    assert key.is_figure
    assert key.example.startswith("{value: 989 TFLOP/s, source: ")
    assert [inner.name for inner in key.keys] == ["value", "source", "kind", "note"]


def test_a_key_that_names_a_file_shows_what_is_in_the_file() -> None:
    assert "hidden" in [key.name for key in find("model").keys]
    assert "efficiency" in [key.name for key in find("software").keys]


def test_keys_inside_a_required_part_are_required() -> None:
    assert find("training.global_batch").default is None
    assert find("model.moe.num_experts").default is None
    assert find("cluster.devices").default is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "training.recmpute",
            "unknown key 'training.recmpute'. Did you mean 'training.recompute'?",
        ),
        ("recompte", "Did you mean 'training.recompute'?"),
        ("qqqq", "unknown key 'qqqq'. `moesim explain` lists all keys."),
        ("", "unknown key ''."),
        ("bandwidth", "may mean several keys: serving.offload.bandwidth, accelerator.memory."),
    ],
)
def test_an_unknown_or_ambiguous_key_is_an_error(words: str, says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        find(words)
    assert says in str(error.value)


def test_the_tree_holds_every_key_with_its_text() -> None:
    roots = tree()
    names = [root.path for root in roots]
    assert names[:2] == ["extends", "name"]
    assert names[-4:] == ["model", "accelerator", "cluster-profile", "software"]
    keys = list(flat(roots))
    assert len(keys) > 150
    assert [key.path for key in keys if not key.text] == []


def test_paths_of_the_tree_are_found() -> None:
    for key in list(flat(tree()))[::11]:
        assert find(key.path).path == key.path
