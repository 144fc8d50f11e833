"""The shipped profiles load, and every figure in them says where it comes from."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.hardware.profiles import (
    accelerator_names,
    cluster_names,
    load_accelerator,
    load_cluster,
    load_machines,
)
from moesim.hardware.topology import cluster
from moesim.spec.shipped import shipped


def _copy(kind: str, name: str, folder: Path, old: str = "", new: str = "") -> str:
    text = (shipped("hwprofiles") / kind / f"{name}.yaml").read_text("utf-8")
    assert old in text
    target = folder / f"{name}.yaml"
    target.write_text(text.replace(old, new, 1), "utf-8")
    return str(target)


@pytest.mark.parametrize("name", accelerator_names())
def test_every_accelerator_loads(name: str) -> None:
    spec = load_accelerator(name)
    assert spec.name == name
    assert spec.peak.fp16 or spec.peak.bf16


def test_every_accelerator_has_a_cluster() -> None:
    used = {load_cluster(name).accelerator for name in cluster_names()}
    # Variants that differ in memory only run on the cluster of their sibling.
    assert set(accelerator_names()) - used == {"a100-pcie-40gb", "gh200-144gb"}


@pytest.mark.parametrize("name", cluster_names())
def test_every_cluster_builds_with_sourced_figures(name: str) -> None:
    spec, accelerator = load_machines(name)
    built = cluster(spec, accelerator, spec.devices_per_node.value)
    assert built.device.name == spec.accelerator
    assert len(built.figures) >= 8
    for figure in built.figures:
        assert len(figure.source) >= 8, figure
        assert figure.kind in {"datasheet", "measured", "fitted", "assumed"}, figure
        assert figure.text


@pytest.mark.parametrize("folder", ["accelerators", "clusters"])
def test_files_begin_with_two_comment_lines_and_name_no_machine_of_ours(folder: str) -> None:
    for path in (shipped("hwprofiles") / folder).glob("*.yaml"):
        lines = path.read_text("utf-8").splitlines()
        assert all(line.startswith("# ") and line.endswith(".") for line in lines[:2]), path
        assert not any("/work" in line or "/home" in line for line in lines), path


def test_assumed_figures_say_what_they_are_assumed_from() -> None:
    for name in cluster_names():
        spec, accelerator = load_machines(name)
        for figure in cluster(spec, accelerator, spec.devices_per_node.value).figures:
            if figure.kind == "assumed" and "latency" in figure.name:
                assert figure.note, figure


def test_wrong_names_give_the_nearest() -> None:
    with pytest.raises(ScenarioError, match=r"accelerator profile 'h100-smx'.*'h100-sxm'"):
        load_accelerator("h100-smx")
    with pytest.raises(ScenarioError, match=r"cluster profile 'dgx-h10'.*'dgx-h100'"):
        load_cluster("dgx-h10")


def test_a_file_on_disk_is_read_from_its_base(tmp_path: Path) -> None:
    _copy("accelerators", "h20", tmp_path, "148 TFLOP/s", "150 TFLOP/s")
    spec = load_accelerator("h20.yaml", base=tmp_path)
    assert spec.peak.fp16 is not None
    assert spec.peak.fp16.value == pytest.approx(150e12)


def test_a_cluster_on_disk_may_name_an_accelerator_beside_it(tmp_path: Path) -> None:
    _copy("accelerators", "h20", tmp_path)
    path = _copy("clusters", "hgx-h20", tmp_path, "accelerator: h20", "accelerator: h20.yaml")
    assert load_machines(path)[1].name == "h20"
    assert load_machines(path, "h200")[1].name == "h200"


def test_a_wrong_unit_is_shown_at_its_place(tmp_path: Path) -> None:
    path = _copy("accelerators", "h20", tmp_path, "148 TFLOP/s", "148 TB/s")
    line = Path(path).read_text("utf-8").splitlines().index("    value: 148 TB/s") + 1
    with pytest.raises(ScenarioError) as caught:
        load_accelerator(path)
    text = str(caught.value)
    assert f"h20.yaml:{line}:5: peak." in text
    assert "unknown unit 'TB/s'; write for example '989 TFLOP/s'" in text


def test_a_figure_without_source_or_kind_is_refused(tmp_path: Path) -> None:
    path = _copy("accelerators", "h20", tmp_path, "    kind: datasheet\n", "")
    with pytest.raises(ScenarioError, match=r"peak\.fp16\.kind: this key is required"):
        load_accelerator(path)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = _copy("clusters", "hgx-h20", tmp_path, "  kind: switch", "  kind: swich")
    text = Path(path).read_text("utf-8").replace("  latency:", "  latencies:", 1)
    Path(path).write_text(text, "utf-8")
    with pytest.raises(ScenarioError) as caught:
        load_cluster(path)
    messages = [str(problem) for problem in caught.value.problems]
    assert any("Did you mean 'switch'?" in message for message in messages)
    assert any("Did you mean 'latency'?" in message for message in messages)


def test_the_name_is_the_file_name(tmp_path: Path) -> None:
    path = _copy("accelerators", "h20", tmp_path, "name: h20", "name: h21")
    with pytest.raises(ScenarioError, match=r"h20\.yaml:3:1: name: must be 'h20'"):
        load_accelerator(path)


@pytest.mark.parametrize(
    ("cluster_name", "old", "new", "message"),
    [
        ("tpu-v4-pod", "value: 4096", "value: 4092", "16 x 16 x 16 = 4096 devices"),
        ("tpu-v4-pod", "kind: torus", "kind: switch", "kind torus needs the key torus"),
        ("dgx-h100", "kind: switch", "kind: torus", "kind torus needs the key torus"),
        ("gb200-nvl72", "value: 72", "value: 71", "one must be a multiple of the other"),
        ("dgx-h100", "value: 256", "value: 100", "leaf_devices must be a multiple"),
        ("dgx-h100", "value: 1\n", "value: 0.5\n", "must be at least 1"),
        ("dgx-h100", "value: 450 GB/s", "value: 0 GB/s", "must be above 0"),
    ],
)
def test_clusters_that_contradict_themselves(
    tmp_path: Path, cluster_name: str, old: str, new: str, message: str
) -> None:
    path = _copy("clusters", cluster_name, tmp_path, old, new)
    with pytest.raises(ScenarioError, match=message):
        load_cluster(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["oversubscription"], "need each other"),
        (["leaf_devices"], "need each other"),
        (["oversubscription", "leaf_devices"], "give oversubscription too"),
    ],
)
def test_leaf_rails_and_oversubscription_come_together(
    tmp_path: Path, keys: list[str], message: str
) -> None:
    path = Path(_copy("clusters", "dgx-h100", tmp_path))
    lines = path.read_text("utf-8").splitlines()
    for key in keys:
        start = lines.index(f"  {key}:")
        end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith("    "))
        del lines[start:end]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(ScenarioError, match=message):
        load_cluster(str(path))
