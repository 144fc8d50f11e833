"""Messages about scenarios: what is allowed, at file, line and column, all of them at once."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.model import ModelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.validate import build, fields_at, load, read_document
from moesim.spec.yaml_text import read_yaml

GOOD = """\
model: mixtral-8x7b
cluster:
  profile: dgx-h100
  devices: 64
parallel: {tp: 2, pp: 4}
training:
  sequence_length: 4096
  global_batch: 256
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        build(Scenario, read_yaml(text, "f.yaml"))
    return [str(problem) for problem in error.value.problems]


def one(text: str) -> str:
    (problem,) = problems(text)
    return problem


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_good_scenario_is_good() -> None:
    assert build(Scenario, read_yaml(GOOD, "f.yaml")).parallel.pp == 4


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        # misspelt keys at every level
        ("model:", "modle:", "f.yaml:1:1: modle: unknown key. Did you mean 'model'? Allowed: "),
        ("  devices", "  device", "f.yaml:4:3: cluster.device: unknown key. Did you mean 'devices"),
        ("pp: 4", "ppp: 4", "f.yaml:5:19: parallel.ppp: unknown key. Did you mean 'pp'? Allowed: "),
        (
            "global_batch: 256",
            "global_batch: 256\n  optimizer: {knd: adam}",
            "f.yaml:9:15: training.optimizer.knd: unknown key. Did you mean 'kind'?",
        ),
        (
            "model:",
            "routing: {capacity: {factor: 1, formla: tutel}}\nmodel:",
            "f.yaml:1:33: routing.capacity.formla: unknown key. Did you mean 'formula'?",
        ),
        (
            "model:",
            "baseline:\n- equal: flop\n- eqal: flop\nmodel:",
            "f.yaml:3:3: baseline[1].eqal: unknown key. Did you mean 'equal'?",
        ),
        ("model:", "parallel.ep: 8\nmodel:", "Keys are nested: write 'parallel:' and 'ep:' below"),
        # missing keys: the place of the nearest parent
        ("  devices: 64\n", "", "f.yaml:2:1: cluster.devices: this key is required"),
        ("model: mixtral-8x7b\n", "", "f.yaml:1:1: model: this key is required"),
        # wrong types
        ("mixtral-8x7b", "7", "f.yaml:1:1: model: must be text, not 7; put it in quotes"),
        ("mixtral-8x7b", "[a]", "f.yaml:1:1: model: must be text, not a list"),
        ("64", "'64'", "f.yaml:4:3: cluster.devices: must be a whole number, not '64'; leave the"),
        ("64", "6e1", "cluster.devices: must be a whole number, not 60.0; write 60"),
        ("64", "6.5", "cluster.devices: must be a whole number, not 6.5"),
        ("64", "yes", "cluster.devices: must be a whole number, not 'yes'"),
        ("64", "12:30", "cluster.devices: must be a whole number, not '12:30'"),
        ("64", "true", "cluster.devices: must be a whole number, not true"),
        ("64", "", "f.yaml:4:3: cluster.devices: has no value; give one or leave the key out"),
        ("{tp: 2, pp: 4}", "8", "f.yaml:5:1: parallel: must have keys of its own (tp, pp, vpp, c"),
        (
            "{tp: 2, pp: 4}",
            "[8]",
            "parallel: must have keys of its own (tp, pp, vpp, cp, …), not a",
        ),
        (
            "{tp: 2, pp: 4}",
            "{sequence_parallel: on}",
            "must be true or false, not 'on'; write true",
        ),
        # limits
        ("64", "0", "f.yaml:4:3: cluster.devices: must be at least 1, not 0"),
        ("64", "-64", "cluster.devices: must be at least 1, not -64"),
        ("64", "10000001", "cluster.devices: must be at most 10000000, not 10000001"),
        ("64", "64\n  oversubscription: 0.5", "f.yaml:5:3: cluster.oversubscription: must be at l"),
        # words
        (
            "tp: 2",
            "schedule: 1f1",
            "must be one of '1f1b', 'gpipe', 'zb_h1', 'zb_h2', 'zb_v', 'dualpipe' or 'dualpipe_v', "
            "not '1f1'. "
            "Did you mean '1f1b",
        ),
        (
            "tp: 2",
            "schedule: 8",
            "must be one of '1f1b', 'gpipe', 'zb_h1', 'zb_h2', 'zb_v', 'dualpipe' or 'dualpipe_v', "
            "not 8.",
        ),
        # quantities
        (
            "64",
            "64\n  price: 2.95",
            "f.yaml:5:3: cluster.price: write a number with its unit, for e",
        ),
        ("64", "64\n  price: 2.95 usd/h", "cluster.price: unknown unit 'usd/h'; write for example"),
        ("64", "64\n  price: 2.95 usd/h", "Did you mean 'USD/h'?"),
        ("64", "64\n  price: -1 USD/h", "'-1 USD/h' is negative; write for example '2.95 USD/h'"),
        ("64", "64\n  price: 1e60 USD/h", "'1e60 USD/h' is too large"),
        ("64", "64\n  price: 1e-60 USD/h", "'1e-60 USD/h' is too small"),
        ("64", "64\n  price: " + "1" * 101 + " USD/h", "cluster.price: is too long for a quantity"),
        ("global_batch", "tokens: 5 tb\n  global_batch", "training.tokens: unknown unit 'tb'"),
        # rules between keys
        ("global_batch: 256", "global_batch: 4\n  micro_batch: 8", "f.yaml:6:1: training: micro_b"),
        ("tp: 2, pp: 4", "vpp: 2", "f.yaml:5:1: parallel: vpp above 1 needs pp above 1"),
        # lists of words
        (
            "global_batch",
            "recompute: [mo]\n  global_batch",
            "unknown module 'mo'. Did you mean 'moe",
        ),
        (
            "global_batch",
            "recompute: all\n  global_batch",
            "must be none, full, or a list of modul",
        ),
    ],
)
def test_one_mistake_gives_one_message_at_its_place(old: str, new: str, says: str) -> None:
    found = problems(changed(old, new))
    assert any(says in problem for problem in found)
    assert len([problem for problem in found if "this key is required" not in problem]) <= 1


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = changed("64", "many").replace("tp: 2", "tpp: 2").replace("256", "0")
    places = [problem.split(": ")[0:2] for problem in problems(text)]
    assert places == [
        ["f.yaml:4:3", "cluster.devices"],
        ["f.yaml:5:12", "parallel.tpp"],
        ["f.yaml:8:3", "training.global_batch"],
    ]


@pytest.mark.parametrize("text", ["- 1\n- 2", "5", "hello", "[]"])
def test_a_file_without_keys_at_its_top_is_told(text: str) -> None:
    assert one(text).startswith("f.yaml:1:1: must have keys of its own (name, description, ")


def test_endless_mistakes_and_texts_are_cut_short() -> None:
    found = problems(GOOD + "".join(f"key{i}: 1\n" for i in range(5000)))
    assert len(found) == 101
    assert found[-1] == "f.yaml:1:1: and 4,900 more problems"
    assert max(map(len, problems(changed("64", "x" * 100_000)))) < 300
    assert max(map(len, problems("y" * 1000 + ": 1\n" + GOOD))) < 500


def test_values_with_line_breaks_stay_on_one_line() -> None:
    text = changed("64", '64\n  price: "2\\n\\n usd"')
    assert "\n" not in one(text)


def test_keys_of_a_union_are_those_of_the_alternative_that_was_chosen() -> None:
    text = "name: m\nsource: s\nhidden: 8\nvocab: 8\nlayers: 2\nffn: {width: 8}\n"
    mla = text + "attention: {kind: mla, heads: 2, kv_heads: 2}\n"
    with pytest.raises(ScenarioError) as error:
        build(ModelSpec, read_yaml(mla, "m.yaml"))
    (unknown,) = (p for p in error.value.problems if "unknown key" in p.message)
    assert unknown.path == "attention.kv_heads"
    assert "kv_lora_rank" in unknown.message
    assert "qkv_bias" not in unknown.message


@pytest.mark.parametrize(
    ("attention", "says"),
    [
        ("{kind: mqa}", "attention.kind: must be one of 'gqa', 'mla', 'linear', not 'mqa'."),
        ("{heads: 2}", "attention.kind: this key is required"),
    ],
)
def test_the_word_that_chooses_an_alternative_is_explained(attention: str, says: str) -> None:
    text = f"name: m\nsource: s\nhidden: 8\nvocab: 8\nlayers: 2\nattention: {attention}\n"
    with pytest.raises(ScenarioError) as error:
        build(ModelSpec, read_yaml(text, "m.yaml"))
    assert any(says in str(problem) for problem in error.value.problems)


def test_fields_follow_lists_and_optional_keys() -> None:
    assert fields_at(Scenario, ("baseline", 0)) == ["equal", "model", "parallel"]
    balancing = ["rule", "w_importance", "w_load", "alpha"]
    assert fields_at(Scenario, ("routing", "load", "balancing")) == balancing
    assert fields_at(Scenario, ("no", "such", "place")) == []


def test_files_that_cannot_be_read_are_told_without_a_place(tmp_path: Path) -> None:
    names = [tmp_path / "none.yaml", tmp_path, tmp_path / "a\0b", tmp_path / ("x" * 5000)]
    for name in names:
        with pytest.raises(ScenarioError) as error:
            load(Scenario, name)
        (problem,) = error.value.problems
        assert problem.file == ""
        assert len(problem.message) < 400


def test_the_file_is_named_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(ScenarioError) as error:
        read_document(path)
    assert str(error.value).startswith(f"{path}:1:5: not valid YAML")
