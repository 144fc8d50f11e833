"""Measurement tables to kernel profiles and their check: the same bytes, nothing seen judged."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from moesim.calibrate.measurements import held_out, read_groups, table_files
from moesim.calibrate.table_fit import accelerator_name, chips_of, fit_profiles, newest
from moesim.cli.main import app
from moesim.errors import CalibrationError

pytest.importorskip("scipy")


def _rows(factor: float = 1.0, version: str = "1.2.0") -> list[str]:
    """Times of an ideal H100 at 80 % of its peak and bandwidth, and a launch of 3 us."""
    rows = []
    for m in (1, 16, 64, 128, 256, 512, 1024, 2048, 4096):
        for n in (1024, 2048, 4096, 8192, 14336):
            for k in (1024, 2048, 4096, 8192):
                compute = 2.0 * m * n * k / (0.8 * 989.4e12)
                memory = 2.0 * (m * k + k * n + m * n) / (0.8 * 3.35e12)
                time_us = factor * (3e-6 + max(compute, memory)) * 1e6
                rows.append(f"h100_sxm,bf16,trtllm,{version},{m},{n},{k},False,{time_us:.4f},lab")
    return rows


HEAD = "hardware,dtype,framework,framework_version,m,n,k,weights_l2_resident,time_us,source"


def _table(folder: Path, rows: list[str], name: str = "mine.csv") -> Path:
    file = folder / name
    file.write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")
    return file


def test_a_table_is_known_by_its_columns(tmp_path: Path) -> None:
    (group,), skipped = read_groups(_table(tmp_path, _rows()))
    assert (group.family, group.library, group.dtype) == ("gemm", "trtllm", "bf16")
    assert len(group.seconds) == 9 * 5 * 4
    assert skipped == []
    assert set(group.samples) >= {"m", "n", "k"}
    assert "time_us" not in group.samples


def test_rows_in_the_cache_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [row.replace("False", "True") if i < 7 else row for i, row in enumerate(_rows())]
    (group,), (left_out,) = read_groups(_table(tmp_path, rows))
    assert len(group.seconds) == 180 - 7
    assert (left_out.rows, left_out.reason) == (7, "weights in the L2 cache")


def test_another_file_is_no_table_and_told(tmp_path: Path) -> None:
    file = tmp_path / "notes.csv"
    file.write_text("a,b\n1,2\n", encoding="utf-8")
    groups, (left_out,) = read_groups(file)
    assert groups == []
    assert left_out.operator == "notes.csv"


def test_no_tables_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no measurement tables"):
        table_files([tmp_path])


def test_what_is_kept_out_depends_on_the_shape_alone(tmp_path: Path) -> None:
    rows = _rows()
    (group,), _ = read_groups(_table(tmp_path, rows))
    (turned,), _ = read_groups(_table(tmp_path, rows[::-1], "turned.csv"))
    families, points = held_out(group)
    turned_families, turned_points = held_out(turned)
    assert (families == turned_families[::-1]).all()
    assert (points == turned_points[::-1]).all()
    assert 0 < families.sum() < 180 / 2
    # a family of shapes is out as a whole
    names = group.samples["n"] * 1e6 + group.samples["k"]
    for name in np.unique(names):
        assert len(set(families[names == name])) == 1


def test_a_fit_finds_an_ideal_machine_and_says_so(tmp_path: Path) -> None:
    groups, _ = read_groups(_table(tmp_path, _rows()))
    (profile,), unfitted = fit_profiles(groups)
    assert unfitted == []
    assert profile.name == "h100-sxm--trtllm"
    (curve,) = profile.curves
    assert curve.median_error < 0.10
    assert curve.rows < 180  # the held-out rows are not among them
    assert curve.source == "lab; trtllm 1.2.0"


def test_the_last_version_counts(tmp_path: Path) -> None:
    rows = [*_rows(2.0, "0.9.1"), *_rows(1.0, "0.10.0")]
    groups, _ = read_groups(_table(tmp_path, rows))
    assert [group.version for group in newest(groups)] == ["0.10.0"]


def test_a_later_version_with_a_handful_of_rows_does_not_count(tmp_path: Path) -> None:
    rows = [*_rows(1.0, "0.9.1"), *_rows(2.0, "0.10.0")[:11]]
    groups, _ = read_groups(_table(tmp_path, rows))
    assert [group.version for group in newest(groups)] == ["0.9.1"]


def test_element_types_of_a_gather_are_fitted_together_but_not_of_an_all_reduce(
    tmp_path: Path,
) -> None:
    head = ("hardware,collective,library,library_version,algorithm,dtype,num_gpus,num_nodes,"
            "gpus_per_node,interconnect,network,bytes,time_us,time_origin,source")  # fmt: skip
    rows = [
        f"h100_sxm,{kind},nccl,2.29,auto,{dtype},{n},1,8,nvlink,none,{2**k},"
        f"{slower * (n + 2**k * (n - 1) / n / 3e5):.4f},measured,lab"
        for kind in ("all_gather", "all_reduce")
        for dtype, slower in (("fp16", 1.0), ("int8", 1.1))
        for n in (2, 4, 8)
        for k in range(9, 30)
    ]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    groups, _ = read_groups(file)
    seen = {}
    for group in groups:
        families, points = held_out(group)
        seen[group.family, group.dtype] = int((~(families | points)).sum())
    (profile,), _ = fit_profiles(groups)
    rows_of = {(curve.family, curve.dtype): curve.rows for curve in profile.curves}
    for key, own in seen.items():
        # the held-out rows of the other type are those of the same sizes: they stay out too
        assert rows_of[key] == (2 * own if key[0] == "all_gather" else own)


def test_hardware_keys_find_their_profile() -> None:
    assert accelerator_name("a100_sxm_80gb") == "a100-sxm-80gb"
    assert accelerator_name("h200_sxm") == "h200"
    assert accelerator_name("tpu_v6e") == "tpu-v6e"
    assert accelerator_name("abacus") is None
    assert chips_of(["h100_sxm", "abacus"])["h100_sxm"].link_bytes_per_s == 450e9


def test_the_commands_from_table_to_judgement(tmp_path: Path) -> None:
    run = CliRunner()
    table = _table(tmp_path, _rows())
    for folder in ("one", "two"):
        done = run.invoke(app, ["profile", "fit", str(table), "--out", str(tmp_path / folder)])
        assert done.exit_code == 0, done.output
    name = "h100-sxm--trtllm.yaml"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    judged = tmp_path / "judged.json"
    options = ["--profiles", str(tmp_path / "one"), "--json", str(judged)]
    assert run.invoke(app, ["profile", "check", str(table), *options]).exit_code == 0
    (row,) = json.loads(judged.read_text())
    assert {"operator", "hardware", "library", "dtype", "rows", "median", "p90", "bias",
            "roofline_median", "skipped", "reason"} <= set(row)  # fmt: skip
    assert 0 < row["rows"] < 180  # what the fit saw is not judged
    # a table that took no part counts whole; a machine half as fast is off by a half
    slow = tmp_path / "slow.csv.gz"
    slow.write_bytes(gzip.compress("\n".join([HEAD, *_rows(2.0)]).encode()))
    assert run.invoke(app, ["profile", "check", str(slow), *options]).exit_code == 0
    (row,) = json.loads(judged.read_text())
    assert row["rows"] == 180
    assert row["bias"] == pytest.approx(-0.5, abs=0.05)


def test_profiles_can_be_shown_and_compared() -> None:
    run = CliRunner()
    assert "h100-sxm--trtllm" in run.invoke(app, ["profile", "show"]).output
    shown = run.invoke(app, ["profile", "show", "h100-sxm--nccl"]).output
    assert "all_gather" in shown
    compared = run.invoke(app, ["profile", "compare", "h100-sxm--nccl", "h200--nccl"])
    assert compared.exit_code == 0
    assert run.invoke(app, ["profile", "show", "h100--nccl"]).exit_code == 2


def test_times_in_another_unit_are_refused(tmp_path: Path) -> None:
    """Milliseconds in the column of microseconds: a thousand times faster than it was.

    At 80 % of peak and bandwidth, and with 3 us of launch, at least 1.25 / 1000 of the bound.
    """
    (group,), _ = read_groups(_table(tmp_path, _rows(factor=1e-3)))
    profiles, (left_out,) = fit_profiles([group])
    assert profiles == []
    assert "times faster than the datasheet allows: is time_us in microseconds?" in left_out.reason
