"""What differs between two scenarios, and what each difference does."""

from pathlib import Path

import pytest

from moesim.spec.differences import between, pair
from moesim.spec.load import load_scenario
from moesim.spec.scenario import Scenario
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
from moesim.study.waterfall import Measure, waterfall

BASE = """
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 8}
parallel: {ep: 8}
training: {sequence_length: 512, global_batch: 32}
"""


def scenario(folder: Path, name: str = "a", text: str = BASE, *settings: str) -> Scenario:
    file = folder / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    return load_scenario(file, settings)


def other(folder: Path, *settings: str) -> Scenario:
    return scenario(folder, "b", BASE, *settings)


def measured(one: Scenario) -> Measure:
    found = simulate(resolve(one))
    return Measure(found.metrics.step_s, found.peak_bytes)


def keys(before: Scenario, after: Scenario) -> list[tuple[str, object, object]]:
    return [(one.key, one.before, one.after) for one in pair(before, after).differences]


def test_defaults_are_no_difference_and_labels_neither(tmp_path: Path) -> None:
    said = other(tmp_path, "training.micro_batch=1", "parallel.rank_order=tp-cp-ep-dp-pp",
                 "description=other", "parallel.etp=1")  # fmt: skip
    assert keys(scenario(tmp_path), said) == []


def test_differences_have_resolved_values_in_the_order_of_the_schema(tmp_path: Path) -> None:
    """etp left out is tp; fp8 without a recipe is tensorwise."""
    after = other(tmp_path, "parallel={tp: 2, ep: 4}", "training.precision=fp8")
    assert keys(scenario(tmp_path), after) == [
        ("parallel.tp", 1, 2), ("parallel.ep", 8, 4), ("parallel.etp", 1, 2),
        ("training.precision", "bf16", "fp8"), ("training.fp8_recipe", None, "tensorwise"),
    ]  # fmt: skip


def test_a_section_that_one_leaves_out_changes_as_a_whole(tmp_path: Path) -> None:
    after = other(tmp_path, "routing.capacity={factor: 1.25, pad: true}")
    both = pair(scenario(tmp_path), after)
    assert [one.key for one in both.differences] == ["routing.capacity"]
    there = between(both, frozenset(["routing.capacity"])).routing.capacity
    assert there is not None
    assert (there.factor, there.pad) == (1.25, True)
    back = pair(after, scenario(tmp_path))
    assert between(back, frozenset(["routing.capacity"])).routing.capacity is None


def test_files_are_found_from_the_folder_of_each_scenario(tmp_path: Path) -> None:
    own = (Path(__file__).parents[3] / "scenarios/models/tiny-moe.yaml").read_text(encoding="utf-8")
    folder = tmp_path / "deeper"
    folder.mkdir()
    (folder / "m.yaml").write_text(own, encoding="utf-8")
    after = scenario(folder, "b", BASE.replace("olmoe-1b-7b", "m.yaml"))
    found = waterfall(scenario(tmp_path), after)
    assert [one.difference.key for one in found.effects] == ["model"]
    assert found.after == measured(after)


def test_a_single_difference_is_the_whole(tmp_path: Path) -> None:
    before, after = scenario(tmp_path), other(tmp_path, "training.recompute=full")
    found = waterfall(before, after)
    (effect,) = found.effects
    whole = measured(after).minus(measured(before))
    assert effect.alone == effect.in_turn == found.whole == whole
    assert found.interaction == Measure(0.0, 0.0)
    assert whole.step_s > 0 > whole.peak_bytes


def test_effects_in_turn_sum_to_the_whole(tmp_path: Path) -> None:
    settings = ("training.recompute=full", "training.micro_batch=2", "parallel.ep=4")
    found = waterfall(scenario(tmp_path), other(tmp_path, *settings))
    in_turn = [one.in_turn for one in found.effects if one.in_turn is not None]
    alone = [one.alone for one in found.effects if one.alone is not None]
    assert len(in_turn) == len(alone) == 3
    assert sum(one.step_s for one in in_turn) == pytest.approx(found.whole.step_s)
    assert sum(one.peak_bytes for one in in_turn) == pytest.approx(found.whole.peak_bytes)
    for part, key in ((found.interaction.step_s, "step_s"),
                      (found.interaction.peak_bytes, "peak_bytes")):  # fmt: skip
        rest = getattr(found.whole, key) - sum(getattr(one, key) for one in alone)
        assert part == pytest.approx(rest)
    assert [(one.key, one.before, one.after) for one in found.derived] == [
        ("micro-batches per step", 4, 2)
    ]


def test_a_key_that_cannot_change_alone_waits_for_another(tmp_path: Path) -> None:
    """vpp needs a pipeline; with ep 8 on 8 devices a pipeline needs a smaller ep."""
    found = waterfall(scenario(tmp_path), other(tmp_path, "parallel={pp: 2, vpp: 2, ep: 4}"))
    effects = {one.difference.key: one for one in found.effects}
    assert list(effects) == ["parallel.ep", "parallel.pp", "parallel.vpp"]
    assert effects["parallel.ep"].alone is not None
    assert effects["parallel.pp"].alone is None
    assert "must divide" in effects["parallel.pp"].reason
    assert "needs pp above 1" in effects["parallel.vpp"].reason
    assert all(one.in_turn is not None for one in found.effects)


def test_keys_that_never_change_alone_go_together(tmp_path: Path) -> None:
    """A layout has as many chunks as stages: neither can change without the other."""
    four = 'parallel={pp: 4, ep: 1, layout: "Et*4|t*4|t*4|t*4L"}'
    two = 'parallel={pp: 2, ep: 1, layout: "Et*8|t*8L"}'
    found = waterfall(scenario(tmp_path, "a", BASE, four), other(tmp_path, two))
    pp, layout = found.effects
    assert (pp.difference.key, layout.difference.key) == ("parallel.pp", "parallel.layout")
    assert pp.alone is layout.alone is pp.in_turn is None
    assert layout.in_turn == found.whole == found.interaction
    assert "chunks" in pp.reason
