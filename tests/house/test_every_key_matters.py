"""H9: each key of the schemas changes a result, or an error names it; prose is shown in reports.

The keys are read from the schema classes, so a new key fails here until it has a change below.
"""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from moesim.errors import ScenarioError
from moesim.spec.base import Spec
from moesim.spec.hardware import AcceleratorSpec, ClusterSpec
from moesim.spec.load import load_scenario
from moesim.spec.scenario import Scenario
from moesim.spec.shipped import shipped
from moesim.spec.software import SoftwareSpec
from moesim.spec.sourced import Figure
from moesim.spec.validate import models_in
from moesim.study.report.routing_summary import summary as routing_summary
from moesim.study.result import Result
from moesim.study.routing_study import routing_study
from moesim.study.run import run
from tests.house.changes import CHANGES, LARGE, UNIFORM, Change

BASE: dict[str, Any] = {
    "model": "olmoe-1b-7b",
    "cluster": {"profile": "cluster.yaml", "devices": 16},
    "software": "software.yaml",
    "parallel": {"tp": 2, "pp": 2, "ep": 4, "etp": 1},
    "training": {"sequence_length": 512, "global_batch": 16, "cuda_graph": "full"},
}
PROFILES = {
    "software": shipped("hwprofiles") / "software" / "megatron.yaml",
    "cluster": shipped("hwprofiles") / "clusters" / "dgx-h100.yaml",
    "accelerator": shipped("hwprofiles") / "accelerators" / "h100-sxm.yaml",
}

PROSE = {"name", "description"}

FP32, TF32, FP8, FP16 = (f"training.precision={dtype}" for dtype in ("fp32", "tf32", "fp8", "fp16"))
OVERSUBSCRIBED = (*LARGE, "cluster.oversubscription=4")
FIGURES: dict[str, Change] = {
    "software.efficiency.gemm": Change("0.5"),
    "software.efficiency.grouped_gemm": Change("0.3"),
    "software.efficiency.attention": Change("0.3"),
    "software.efficiency.memory": Change("0.5"),
    "software.efficiency.scale_up": Change("0.5"),
    "software.efficiency.scale_out": Change("0.5"),
    "software.efficiency.overlapped": Change("0.01"),
    "software.kernel_launch": Change("1 ms"),
    "software.host_per_kernel": Change("1 ms", ("training.cuda_graph=none",)),
    "software.host_sync": Change("1 ms", ("training.cuda_graph=none",)),
    "software.reserved_memory": Change("9 GiB"),
    "software.fragmentation": Change("0.5"),
    "accelerator.peak.fp32": Change("10 TFLOP/s", (FP32,)),
    "accelerator.peak.tf32": Change("10 TFLOP/s", (TF32,)),
    "accelerator.peak.fp16": Change("100 TFLOP/s", (FP16,)),
    "accelerator.peak.bf16": Change("100 TFLOP/s"),
    "accelerator.peak.fp8": Change("100 TFLOP/s", (FP8,)),
    "accelerator.memory.capacity": Change("1 GiB"),
    "accelerator.memory.bandwidth": Change("1 TB/s"),
    "accelerator.compute_units": Change("100"),
    "accelerator.matrix_unit": Change("4096"),
    "accelerator.l2": Change("10 MB", ("software=megatron",)),
    "accelerator.tdp": Change("1 kW"),
    "accelerator.price": Change("9 USD/h"),
    "accelerator.host_link": Change("1 GB/s", ("training.optimizer.offload=true",)),
    "cluster.devices_per_node": Change("4"),
    "cluster.scale_up.domain": Change("4"),
    "cluster.scale_up.bandwidth": Change("100 GB/s"),
    "cluster.scale_up.latency": Change("50 us"),
    "cluster.scale_out.fabric": Change("ethernet", (*LARGE, "software=megatron")),
    "cluster.scale_out.nic_bandwidth": Change("10 Gb/s"),
    "cluster.scale_out.nics_per_node": Change("1"),
    "cluster.scale_out.latency": Change("1 ms"),
    "cluster.scale_out.oversubscription": Change("8", LARGE),
    "cluster.scale_out.leaf_devices": Change("512", OVERSUBSCRIBED),
    "cluster.scale_out.rails": Change("1", OVERSUBSCRIBED),
    "cluster.max_devices": Change("8"),
}
POD = ("cluster.devices=1024", "training.global_batch=1024", "parallel={tp: 1, pp: 1, ep: 32}")
HALF_A_POD = ("cluster.devices=512", "training.global_batch=512", "parallel={tp: 1, pp: 1, ep: 32}")
TORUS: dict[str, Change] = {
    "cluster.scale_up.torus.shape": Change("[64, 16]", POD),
    "cluster.scale_up.torus.ring_multiple": Change("64", POD),
    "cluster.scale_up.torus.rings": Change("every_axis", HALF_A_POD),
}
"""On a torus of 32 x 32: half a pod is 16 x 32, of which one axis closes."""
WORDS: dict[str, Change] = {
    "cluster.accelerator": Change("a100-sxm-80gb"),
    "cluster.scale_up.kind": Change("mesh"),
}
REPORTED_ONLY: Mapping[str, str] = {
    "accelerator.peak.int8": "no training precision computes in it: weights of inference only",
    "accelerator.peak.fp4": "no training precision computes in it: weights of inference only",
    "accelerator.peak.nvfp4": "no training precision computes in it: weights of inference only",
}
"""Figures for which no scenario has a use yet, and why."""

KERNELS: Mapping[str, str] = {
    "software.kernels.gemm": "[]",
    "software.kernels.grouped_gemm": "[]",
    "software.kernels.attention": "[]",
    "software.kernels.elementwise": "[]",
    "software.kernels.collectives": "[]",
    "software.kernels.exchange": "[]",
    "software.kernels.reason": "A-marker-of-mine",
}
"""Choices of measured kernels: without them the efficiencies stand."""


def leaves(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys below `kind` that hold a value or a sourced figure."""
    for name, field in kind.model_fields.items():
        inner = [one for one in models_in(field.annotation) if not issubclass(one, Figure)]
        for one in inner:
            yield from leaves(one, f"{prefix}{name}.")
        if not inner:
            yield prefix + name


def physics(result: Result) -> Any:
    """Return the figures of a result, without names and without the scenario itself."""
    summary = result.summary()
    kept = ("metrics", "breakdown", "memory", "routing", "comparison")
    runs = [summary["model"], *summary["baselines"]]
    return [
        summary["fits"],
        summary["changes_that_would_fit"],
        summary["campaign"],
        [{key: one[key] for key in kept if key in one} for one in runs],
    ]


def studied(file: Path, *settings: str) -> Any:
    """Return the figures of a routing study."""
    summary = routing_summary(routing_study(load_scenario(file, settings)))
    return [True, {name: value for name, value in summary.items() if name != "scenario"}]


def outcome(file: Path, *settings: str) -> Any:
    """Return the figures of a run, or the keys that its error names."""
    try:
        return physics(run(load_scenario(file, settings)))
    except ScenarioError as error:
        return [problem.path for problem in error.problems]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The base scenario on copies of its profiles; other.yaml is another software."""
    for kind in PROFILES:
        write(tmp_path, kind, read(kind))
    for name, skew in (("loads", 3), ("other", 9)):
        (tmp_path / f"{name}.csv").write_text(loads(skew), encoding="utf-8")
    other = read("software")
    figures(other)[0]["value"] = 0.11
    write(tmp_path, "other", other)
    file = tmp_path / "base.yaml"
    file.write_text(json.dumps(BASE), encoding="utf-8")
    return file


def loads(skew: int) -> str:
    """Return counts of 64 experts of which eight are chosen, in two domains, as a trace file."""
    rows = ["model,checkpoint,domain,layer,selection,expert,count"]
    for domain, first in (("a", 0), ("b", 32)):
        for expert in range(64):
            count = 100 * (skew if first <= expert < first + 8 else 1) + expert
            rows.append(f"olmoe,final,{domain},0,top8,{expert},{count}")
    return "\n".join(rows) + "\n"


def read(kind: str) -> Any:
    """Return a profile; the software without measured kernels, which would hide its figures."""
    profile = YAML(typ="safe", pure=True).load(PROFILES[kind].read_text(encoding="utf-8"))
    profile.pop("kernels", None)
    if kind == "cluster":
        profile["accelerator"] = "accelerator.yaml"
    return profile


def write(folder: Path, name: str, profile: Any) -> None:
    text = json.dumps({**profile, "name": name})
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def figures(node: Any) -> list[Any]:
    if not isinstance(node, dict):
        return []
    found = [node] if "value" in node else []
    return found + [figure for inner in node.values() for figure in figures(inner)]


def test_every_key_of_a_scenario_has_a_change_here() -> None:
    assert set(leaves(Scenario)) == set(CHANGES) | PROSE


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_of_a_scenario_changes_the_result(base: Path, key: str) -> None:
    change = CHANGES[key]
    look = studied if change.study else outcome
    before = look(base, *change.under)
    after = look(base, *change.under, f"{change.key or key}={change.value}")
    assert isinstance(before[0], bool), f"the base itself is an error about {before}"
    if isinstance(after[0], bool):
        assert after != before
    else:
        assert after == [key]


def test_the_same_settings_give_the_same_figures(base: Path) -> None:
    assert outcome(base, *UNIFORM) == outcome(base, *UNIFORM)


@pytest.mark.parametrize("key", sorted(PROSE))
def test_prose_of_a_scenario_is_shown(base: Path, key: str) -> None:
    result = run(load_scenario(base, [f"{key}=A-marker-of-mine"]))
    assert result.summary()[key] == "A-marker-of-mine"
    assert "A-marker-of-mine" in result.html()


SPECS: dict[str, type[Spec]] = {
    "software": SoftwareSpec,
    "accelerator": AcceleratorSpec,
    "cluster": ClusterSpec,
}
SHOWN = {"name", "description", "vendor"}


SERVED = {"software.host_per_iteration", "software.host_per_sequence", "software.host_per_request"}
"""Figures of serving only: tests/unit/study/serving/test_host.py changes each of them."""


def test_every_key_of_a_profile_has_a_change_here() -> None:
    keys = {f"{kind}.{path}" for kind, spec in SPECS.items() for path in leaves(spec)}
    prose = {f"{kind}.{name}" for kind in SPECS for name in SHOWN}
    assert keys - prose - SERVED == set(FIGURES) | set(TORUS) | set(WORDS) | set(
        REPORTED_ONLY
    ) | set(KERNELS)


def changed(profile: Any, path: str, value: str, *, figure: bool) -> Any:
    """Return `profile` with another value at `path`, added where it lacks one."""
    profile = deepcopy(profile)
    *outer, last = path.split(".")
    node = profile
    for part in outer:
        node = node[part]
    parsed = YAML(typ="safe", pure=True).load(value)
    if figure:
        node[last] = {"source": "a test", "kind": "assumed", **node.get(last, {}), "value": parsed}
    else:
        node[last] = parsed
    return profile


@pytest.mark.parametrize("key", [*FIGURES, *WORDS])
def test_a_figure_of_a_profile_changes_the_result(base: Path, key: str) -> None:
    change = (FIGURES | WORDS)[key]
    kind, _, path = key.partition(".")
    before = outcome(base, *change.under)
    write(base.parent, kind, changed(read(kind), path, change.value, figure=key in FIGURES))
    after = outcome(base, *change.under)
    assert isinstance(before[0], bool), f"the base itself is an error about {before}"
    assert after != before


@pytest.mark.parametrize("key", TORUS)
def test_a_figure_of_a_torus_changes_the_result(base: Path, key: str) -> None:
    torus = shipped("hwprofiles") / "clusters" / "tpu-v3-pod.yaml"
    profile = YAML(typ="safe", pure=True).load(torus.read_text(encoding="utf-8"))
    settings = TORUS[key].under
    write(base.parent, "cluster", profile)
    before = outcome(base, *settings)
    path = key.removeprefix("cluster.")
    figure = key != "cluster.scale_up.torus.rings"
    write(base.parent, "cluster", changed(profile, path, TORUS[key].value, figure=figure))
    after = outcome(base, *settings)
    assert isinstance(before[0], bool), f"the base itself is an error about {before}"
    assert after != before


@pytest.mark.parametrize("key", KERNELS)
def test_a_choice_of_kernels_changes_the_result(base: Path, key: str) -> None:
    text = PROFILES["software"].read_text(encoding="utf-8")
    profile = YAML(typ="safe", pure=True).load(text)
    profile["kernels"]["elementwise"] = ["vidur-pytorch"]
    write(base.parent, "software", profile)
    deepep = "parallel.dispatcher=deepep"
    before = outcome(base, deepep)
    path = key.removeprefix("software.")
    write(base.parent, "software", changed(profile, path, KERNELS[key], figure=False))
    if path == "kernels.reason":
        assert KERNELS[key] in run(load_scenario(base)).html()
    else:
        assert outcome(base, deepep) != before


@pytest.mark.parametrize("key", REPORTED_ONLY)
def test_a_figure_without_use_is_reported_as_changed(base: Path, key: str) -> None:
    kind, _, path = key.partition(".")
    write(base.parent, kind, changed(read(kind), path, "123 TFLOP/s", figure=True))
    rows = run(load_scenario(base)).tables()["assumptions"]
    assert [row["value"] for row in rows if row["name"] == path] == ["123 TFLOP/s"]


@pytest.mark.parametrize("kind", SPECS)
def test_prose_of_a_profile_is_shown(base: Path, kind: str) -> None:
    names = SHOWN & set(SPECS[kind].model_fields)
    profile = {**read(kind), **{name: f"marker {name}" for name in names}}
    write(base.parent, kind, profile)
    result = run(load_scenario(base))
    texts = json.dumps(result.summary()) + json.dumps(result.tables())
    for name in names - {"name"}:
        assert f"marker {name}" in texts
    assert f'"{kind}"' in texts or f"{kind} {kind}" in texts


@pytest.mark.parametrize("kind", SPECS)
def test_source_kind_and_note_of_every_figure_are_shown(base: Path, kind: str) -> None:
    profile = read(kind)
    found = figures(profile)
    for number, figure in enumerate(found):
        figure.update(source=f"source {number}", kind="assumed", note=f"note {number}")
    write(base.parent, kind, profile)
    rows = run(load_scenario(base)).tables()["assumptions"]
    mine = [row for row in rows if row["subject"].startswith(kind)]
    assert {row["source"] for row in mine} == {f"source {n}" for n in range(len(found))}
    assert {row["note"] for row in mine} == {f"note {n}" for n in range(len(found))}
    assert {row["kind"] for row in mine} == {"assumed"}
