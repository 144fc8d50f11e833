"""Measurement tables that people write: columns missing, cells that are no numbers, odd files."""

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from moesim.calibrate import table_file
from moesim.calibrate.importers import source
from moesim.calibrate.measurements import Group, joined, read_groups
from moesim.calibrate.table_rows import COLUMNS
from moesim.calibrate.tables import TABLES
from moesim.cli.main import app
from moesim.errors import CalibrationError

ANY = {"hardware": "h100_sxm", "library": "mine", "library_version": "1.0", "time_us": "50"}

WORDS = {
    "dtype": "bf16", "scope": "kernel", "projection_dtype": "none", "routing": "balanced",
    "gated": "True", "collective": "all_reduce", "mode": "high_throughput", "phase": "dispatch",
}  # fmt: skip

OPERATORS = {"mla_bmm": "mla_gen_pre", "grouped_gemm": "down", "elementwise": "rmsnorm"}

KINDS = [table.operator for table in TABLES]


def needed(kind: str) -> dict[str, str]:
    """Return a row of a table of this kind with nothing that may be left out."""
    columns = COLUMNS[kind]
    words = {name: WORDS.get(name, OPERATORS.get(kind, "")) for name in columns.words}
    sizes = {**dict.fromkeys(columns.sizes, "8"), **dict.fromkeys(columns.either[:1], "8")}
    nodes = {"num_nodes": "1"} if "num_nodes" in columns.sizes else {}
    return {**ANY, **words, **sizes, **nodes}


def written(folder: Path, rows: Iterable[Mapping[str, str]], name: str = "mine.csv") -> Path:
    listed = list(rows)
    lines = [",".join(listed[0]), *(",".join(row.values()) for row in listed)]
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def profile(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", *arguments])


def test_every_kind_of_table_says_what_its_columns_may_hold() -> None:
    assert list(COLUMNS) == KINDS
    for table in TABLES:
        columns = COLUMNS[table.operator]
        known = {*columns.sizes, *columns.words, *columns.either, *columns.flags}
        assert set(table.needs) <= known


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_may_be_missing(kind: str, tmp_path: Path) -> None:
    (group,), skipped = read_groups(written(tmp_path, [needed(kind)]))
    assert skipped == []
    assert (group.operator, len(group.seconds)) == (kind, 1)
    assert all(
        np.isfinite(group.samples[name]).all() for name in ("time",) if name in group.samples
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_must_be_there_is_named(kind: str, tmp_path: Path) -> None:
    """Without one that tells the kind itself, the file may be of no kind."""
    for name in needed(kind):
        if name in ("library", "library_version"):
            continue
        row = {key: value for key, value in needed(kind).items() if key != name}
        groups, (left_out,) = read_groups(written(tmp_path, [row]))
        assert groups == []
        assert name in left_out.reason or left_out.reason == "no table that a fit can use"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["", "nan", "-8", "0", "inf", "1e300", "8 ms", "abc"])
def test_a_size_that_is_none_leaves_its_row_out(kind: str, cell: str, tmp_path: Path) -> None:
    good = needed(kind)
    sizes = [*COLUMNS[kind].sizes, *COLUMNS[kind].either[:1]]
    for name in sizes:
        file = written(tmp_path, [good, {**good, name: cell}, good])
        (group,), (left_out,) = read_groups(file)
        assert len(group.seconds) == 2
        assert left_out.rows == 1
        assert left_out.reason == f"{name} is not a number above 0, first in line 3"


def test_numbers_that_may_be_empty_are_numbers_above_0_where_they_stand(tmp_path: Path) -> None:
    for kind, name in (("moe", "num_expert_slots"), ("moe", "ep_size"), ("moe", "tp_size"),
                       ("collectives", "gpus_per_node"), ("moe_alltoall", "num_sms")):  # fmt: skip
        good = {**needed(kind), name: ""}
        rows = [good, *({**good, name: cell} for cell in ("8", "0", "-1", "inf"))]
        (group,), (left_out,) = read_groups(written(tmp_path, rows))
        assert (len(group.seconds), left_out.rows) == (2, 3)
        assert left_out.reason == f"{name} is not a number above 0, first in line 4"


def test_what_may_be_0_may_be_empty_too(tmp_path: Path) -> None:
    good = {**needed("attention_prefill"), "sliding_window": "", "past_kv_tokens": "0"}
    (group,), skipped = read_groups(written(tmp_path, [good, {**good, "sliding_window": "0"}]))
    assert skipped == []
    assert group.samples["sliding_window"].tolist() == [0.0, 0.0]


def test_a_bandwidth_needs_no_time(tmp_path: Path) -> None:
    """4,096 tokens to 8 experts each, rows of 7,168 values of 2 bytes: 470 MB at 47 GB/s."""
    row = {**needed("moe_alltoall"), "time_us": "", "tokens_per_rank": "4096", "top_k": "8",
           "hidden_size": "7168", "reported_bandwidth_GB_per_s": "47",
           "bandwidth_kind": "payload"}  # fmt: skip
    (group,), skipped = read_groups(written(tmp_path, [row]))
    assert skipped == []
    assert group.seconds[0] == pytest.approx(4096 * 8 * 7168 * 2 / 47e9)
    del row["bandwidth_kind"]
    groups, (left_out,) = read_groups(written(tmp_path, [row]))
    assert (groups, left_out.reason) == ([], "no time published")


@pytest.mark.parametrize("cell", ["-50", "0", "inf", "50 us", "abc"])
def test_a_time_that_is_none_leaves_its_row_out(cell: str, tmp_path: Path) -> None:
    good = needed("gemm")
    (group,), (left_out,) = read_groups(written(tmp_path, [good, good, {**good, "time_us": cell}]))
    assert len(group.seconds) == 2
    assert left_out.reason == "time_us is not a number above 0, first in line 4"


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_a_time_is_left_out(kind: str, tmp_path: Path) -> None:
    good = needed(kind)
    _, (left_out,) = read_groups(written(tmp_path, [good, {**good, "time_us": ""}]))
    assert (left_out.rows, left_out.reason) == (1, "no time published")


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_nothing_but_empty_cells_is_no_error(kind: str, tmp_path: Path) -> None:
    empty = dict.fromkeys(needed(kind), "")
    groups, skipped = read_groups(written(tmp_path, [empty, empty]))
    assert groups == []
    assert sum(one.rows for one in skipped) == 2


@pytest.mark.parametrize(
    ("cell", "kept"), [("true", 1), ("1", 1), ("yes", 1), ("FALSE", 2), ("", 2), ("0", 2)]
)
def test_flags_in_other_spellings(cell: str, kept: int, tmp_path: Path) -> None:
    good = {**needed("gemm"), "weights_l2_resident": "False"}
    rows = [good, {**good, "weights_l2_resident": cell}]
    (group,), _ = read_groups(written(tmp_path, rows))
    assert len(group.seconds) == kept


def test_a_mark_at_the_start_and_dos_line_ends_are_no_part_of_a_name(tmp_path: Path) -> None:
    row = needed("gemm")
    text = ",".join(row) + "\r\n" + ",".join(row.values()) + "\r\n"
    file = tmp_path / "mine.csv"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (group,), skipped = read_groups(file)
    assert (skipped, len(group.seconds)) == ([], 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.csv", b""),
        ("mine.csv", "m,n\n1,2\n".encode("utf-16")),
        ("mine.csv", b"m,n,k\n1,2,3,4,5\n"),
        ("mine.csv", b"\x80\x04\x95pickle"),
        ("mine.csv.gz", gzip.compress(b"m,n,k\n" + 999 * b"1,2,3\n", mtime=0)[:-20]),
        ("mine.csv.gz", b"\x1f\x8b\x08nonsense"),
        ("mine.parquet", b"PAR1 no table"),
        ("mine.parquet", b""),
    ],
)
def test_a_file_that_is_no_table_is_one_line_and_exit_code_2(
    name: str, content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    for command in (["check", str(file)], ["fit", str(file), "--out", str(tmp_path / "out")]):
        done = profile(*command)
        assert done.exit_code == 2
        assert name in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_TEXT_BYTES", 2**20)
    monkeypatch.setattr(table_file, "MAX_TEXT_BYTES", 2**20)
    file = tmp_path / "mine.csv.gz"
    file.write_bytes(gzip.compress(b"m,n,k\n" + 2**20 * b"1"))
    with pytest.raises(CalibrationError, match="unpacks to more than 1 MiB"):
        read_groups(file)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"m": np.zeros(2**20), "n": np.zeros(2**20)})
    frame.to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(CalibrationError, match="unpacks to more than 1 MiB"):
        read_groups(tmp_path / "mine.parquet")


def test_rows_of_parquet_have_numbers_and_no_lines(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    good = {**needed("gemm"), "m": 8.0, "n": 8, "k": 8, "time_us": 50.0}
    pandas.DataFrame([good, {**good, "m": np.nan}]).to_parquet(tmp_path / "mine.parquet")
    _, (left_out,) = read_groups(tmp_path / "mine.parquet")
    assert left_out.reason == "m is not a number above 0, first in row 2"


def test_tables_of_one_kind_in_two_files_count_together(tmp_path: Path) -> None:
    """The first has one more column, and the second another source."""
    first = {**needed("gemm"), "source": "a", "batch": "1"}
    second = {**needed("gemm"), "m": "16", "source": "b"}
    groups = [*read_groups(written(tmp_path, [first, first], "a.csv"))[0],
              *read_groups(written(tmp_path, [second], "b.csv"))[0]]  # fmt: skip
    (both,) = joined(groups)
    assert both.samples["m"].tolist() == [8.0, 8.0, 16.0]
    assert both.sources == ("a", "b")
    assert len(both.seconds) == len(both.shapes) == len(both.points) == 3
    assert "batch" not in both.samples
    other = [_with_version(group) for group in groups[1:]]
    assert len(joined([*groups[:1], *other])) == 2


def _with_version(group: Group) -> Group:
    return replace(group, version="2.0")


def test_nothing_to_fit_is_an_error_that_says_why(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    good = needed("gemm")
    file = written(tmp_path, [{**good, "time_us": "fast"}, {**good, "hardware": "abacus"}])
    done = profile("fit", str(file), "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert "time_us is not a number above 0, first in line 2" in done.stderr
    assert "no accelerator profile for abacus" in done.stderr
    assert "nothing to fit" in done.stderr.splitlines()[-1]
    assert "fast" not in done.stderr


def test_a_folder_that_cannot_be_written_is_told_before_the_fit(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    file = written(tmp_path, [needed("gemm")])
    done = profile("fit", str(file), "--out", str(file / "below"))
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)


def test_profiles_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    file = written(tmp_path, [needed("gemm")])
    done = profile("check", str(file), "--profiles", str(tmp_path / "none"))
    assert done.exit_code == 2
    assert "no kernel profiles" in done.stderr


def test_the_name_of_a_library_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    shapes = [(2**i, 256 * j) for i in range(9) for j in range(1, 11)]
    rows = [
        {**needed("gemm"), "library": "../../up/x", "m": str(m), "n": str(n), "time_us": str(5 + m)}
        for m, n in shapes
    ]
    out = tmp_path / "deep" / "out"
    done = profile("fit", str(written(tmp_path, rows)), "--out", str(out))
    assert done.exit_code == 0, done.stderr
    assert [file.name for file in out.iterdir()] == ["h100-sxm--up-x.yaml"]
    assert json.loads(_body(out / "h100-sxm--up-x.yaml"))["library"] == "../../up/x"


def _body(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))
