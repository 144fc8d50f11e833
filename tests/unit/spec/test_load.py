"""Scenarios from files: shipped names, extends, --set, and paths between folders."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario, load_serving, scenario_file
from moesim.spec.shipped import shipped, shipped_names

GOOD = """\
description: a base
model: mixtral-8x7b
cluster: {profile: dgx-h100, devices: 64}
parallel: {tp: 2, pp: 4}
training: {sequence_length: 4096, global_batch: 256}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.yaml", GOOD)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: str | Path, *settings: str) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        load_scenario(path, settings)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize("name", shipped_names(shipped("scenarios")))
def test_shipped_scenarios_load_by_name(name: str) -> None:
    load = load_serving if name.startswith("serving-") else load_scenario
    assert load(name).name == name


def test_a_serving_scenario_is_told_from_one_of_training() -> None:
    with pytest.raises(ScenarioError, match="serving: belongs to a serving scenario"):
        load_scenario("serving-deepseek-v3-8xh200")


def test_the_name_left_out_is_that_of_the_file(base: Path, tmp_path: Path) -> None:
    assert load_scenario(base).name == "base"
    odd = write(tmp_path / ".ä b.yaml", GOOD)
    assert load_scenario(odd).name == "b"
    assert load_scenario(base, ["name=other"]).name == "other"


def test_a_child_changes_keys_of_its_parent_and_keeps_the_rest(base: Path) -> None:
    child = write(base.parent / "child.yaml", "extends: base.yaml\nparallel: {pp: 8}\nseed: 3\n")
    scenario = load_scenario(child)
    assert (scenario.parallel.tp, scenario.parallel.pp, scenario.seed) == (2, 8, 3)
    assert scenario.training.global_batch == 256


def test_a_child_has_its_own_name_and_description(base: Path) -> None:
    write(base, "name: parent\n" + GOOD)
    child = write(base.parent / "child.yaml", "extends: base.yaml\n")
    assert load_scenario(child).name == "child"
    assert load_scenario(child).description == ""


def test_a_shipped_scenario_can_be_extended_by_name(tmp_path: Path) -> None:
    child = write(tmp_path / "c.yaml", "extends: mixtral-8x7b-64xh100\ncluster: {devices: 128}\n")
    assert load_scenario(child).cluster.devices == 128
    assert load_scenario(child).model == "mixtral-8x7b"


def test_paths_of_the_parent_start_at_the_parents_folder(tmp_path: Path) -> None:
    write(tmp_path / "far" / "base.yaml", GOOD.replace("mixtral-8x7b", "net/model.yaml"))
    child = write(tmp_path / "near" / "child.yaml", "extends: ../far/base.yaml\n")
    scenario = load_scenario(child)
    wanted = tmp_path / "far" / "net" / "model.yaml"
    assert Path(scenario.path_of(scenario.model)).resolve() == wanted.resolve()
    assert scenario.cluster.profile == "dgx-h100"


def test_a_directory_of_the_parent_stays_a_path(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", GOOD.replace("mixtral-8x7b", "./net"))
    child = write(tmp_path / "child.yaml", "extends: base.yaml\n")
    assert load_scenario(child).model == "./net"


def test_mistakes_in_parent_and_child_have_their_own_places(base: Path) -> None:
    write(base, GOOD.replace("pp: 4", "pp: four"))
    child = write(base.parent / "child.yaml", "extends: base.yaml\nsed: 3\nparallel: {tp: two}\n")
    assert [line.split(": ")[0] for line in problems(child)] == [
        f"{base}:4:19",
        f"{child}:2:1",
        f"{child}:3:12",
    ]


def test_what_a_child_replaces_has_the_childs_place(base: Path) -> None:
    child = write(base.parent / "child.yaml", "extends: base.yaml\nparallel: 7\n")
    scenario_error = problems(child)
    assert scenario_error[0].startswith(f"{child}:2:1: parallel: must have keys of its own")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: 5", ":1:1: extends: must be the name of a scenario or the path of its file"),
        ("extends: none.yaml", ":1:1: extends: cannot read "),
        ("extends: nosuch", ":1:1: extends: unknown scenario 'nosuch'. Known: "),
        ("extends: mixtral-8x7b-64xh10", "Did you mean 'mixtral-8x7b-64xh100'?"),
        ("extends: child.yaml", ":1:1: extends: scenarios extend each other in a circle"),
        ("extends: ./", ":1:1: extends: cannot read "),
        ('extends: "a\\0b.yaml"', ":1:1: extends: "),
        ("extends: " + "x" * 5000 + ".yaml", ":1:1: extends: cannot read "),
        ("extends: list.yaml", "a scenario has keys at its top"),
        ("extend: base.yaml", ":1:1: extend: unknown key. Did you mean 'extends'?"),
    ],
)
def test_a_wrong_parent_is_told_where_it_is_named(base: Path, text: str, says: str) -> None:
    write(base.parent / "list.yaml", "- 1\n")
    child = write(base.parent / "child.yaml", text + "\n")
    assert any(says in problem for problem in problems(child))


def test_a_long_circle_is_found(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.yaml", f"extends: {(i + 1) % 3}.yaml\n")
    assert "in a circle" in problems(tmp_path / "0.yaml")[0]


def test_a_chain_of_eight_is_long_enough(tmp_path: Path) -> None:
    write(tmp_path / "8.yaml", GOOD)
    for i in range(8):
        write(tmp_path / f"{i}.yaml", f"extends: {i + 1}.yaml\n")
    write(tmp_path / "long.yaml", "extends: 0.yaml\n")
    assert load_scenario(tmp_path / "0.yaml").parallel.pp == 4
    assert "more than 8 scenarios" in problems(tmp_path / "long.yaml")[0]


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("parallel.tp=4", "tp", 4),
        (" parallel . tp = 4", "tp", 4),
        ("parallel.etp=1", "etp", 1),
        ("parallel={ep: 8}", "ep", 8),
        ("parallel.etp=", "etp", None),
        ("parallel.sequence_parallel=false", "sequence_parallel", False),
        ("parallel.schedule=gpipe", "schedule", "gpipe"),
    ],
)
def test_a_setting_changes_one_key(base: Path, setting: str, key: str, value: object) -> None:
    parallel = load_scenario(base, [setting]).parallel
    assert getattr(parallel, key) == value
    assert parallel.pp == 4


def test_settings_take_quantities_lists_and_new_keys(base: Path) -> None:
    settings = [
        "cluster.price=2 USD/h",
        "training.recompute=[moe_act, mlp]",
        "routing.capacity.factor=1.25",
        "baseline.equal=flop",
        "description=a = b",
    ]
    scenario = load_scenario(base, settings)
    assert scenario.cluster.price == 2.0
    assert scenario.training.recompute == ("moe_act", "mlp")
    assert scenario.routing.capacity is not None
    assert scenario.routing.capacity.factor == 1.25
    assert scenario.baseline[0].equal == "flop"
    assert scenario.description == "a = b"


def test_the_last_setting_of_a_key_wins(base: Path) -> None:
    assert load_scenario(base, ["parallel.tp=4", "parallel.tp=8"]).parallel.tp == 8


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "parallel.tp",
            "--set parallel.tp:1:1: must have the form key=value, such as parallel.tp=",
        ),
        ("=4", "--set =4:1:1: must have the form key=value"),
        ("parallel..tp=4", "must have the form key=value"),
        (
            "parallel.tpp=4",
            "--set parallel.tpp=4:1:1: parallel.tpp: unknown key. Did you mean 'tp'",
        ),
        ("paralel.tp=4", "--set paralel.tp=4:1:1: paralel: unknown key. Did you mean 'parallel'?"),
        ("parallel.tp=x", "--set parallel.tp=x:1:1: parallel.tp: must be a whole number, not 'x'"),
        ("parallel.tp=[", "--set parallel.tp=[:1:1: parallel.tp: not valid YAML"),
        ("parallel.tp=.nan", ":1:1: parallel.tp: NaN and infinity are not allowed"),
        ("parallel.tp=!!int 4", "parallel.tp: the tag '!!int' is not allowed"),
        ("parallel={tp: x}", "--set parallel={tp: x}:1:1: parallel.tp: must be a whole number"),
        ("cluster.devices=", "cluster.devices: has no value"),
        ("extends=other", "--set extends=other:1:1: extends: stands in a file only"),
        ("parallel.tp=" + "9" * 5000, "is too large"),
        ("seed=\0", ":1:1: seed: the character U+0000 is not allowed"),
    ],
)
def test_a_wrong_setting_is_told_as_it_was_written(base: Path, setting: str, says: str) -> None:
    (problem,) = problems(base, setting)
    assert says in problem
    assert len(problem) < 400


def test_a_mapping_that_was_set_keeps_the_places_of_its_other_keys(base: Path) -> None:
    write(base, GOOD.replace("pp: 4", "pp: four"))
    assert problems(base, "parallel={tp: 4}")[0].startswith(f"{base}:4:19: parallel.pp: ")


def test_a_name_is_a_file_where_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "plain", GOOD)
    assert scenario_file("plain") == Path("plain")
    assert scenario_file("x.yaml") == Path("x.yaml")
    assert scenario_file("x.yml") == Path("x.yml")
    for name in ("nosuch", "a\0b", "x" * 5000):
        with pytest.raises(ScenarioError, match="unknown scenario"):
            scenario_file(name)


def test_errors_found_later_have_the_place_of_the_nearest_key(base: Path) -> None:
    scenario = load_scenario(base)
    for key, place in (
        ("parallel.pp", f"{base}:4:19"),
        ("parallel.ep", f"{base}:4:1"),
        ("routing.capacity.factor", f"{base}:1:1"),
        ("baseline.0.parallel.tp", f"{base}:1:1"),
    ):
        assert str(scenario.error(key, "no")).startswith(f"{place}: ")
