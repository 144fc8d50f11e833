"""What all formats share: telling them apart, caps, repeats, facts, tables that are written."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from moesim.calibrate.importers import source
from moesim.calibrate.importers.csv_files import write_tables
from moesim.calibrate.importers.facts import Facts, checked
from moesim.calibrate.importers.formats import FORMATS, FileRead, read_file, tables_of
from moesim.calibrate.importers.rows import Row, merged
from moesim.calibrate.importers.torch_trace import read_torch_trace
from moesim.calibrate.measurements import table_of
from moesim.errors import CalibrationError
from tests.unit.calibrate.importers.samples import H100, SAMPLES, SECRETS, TRACE


def written(folder: Path, name: str, data: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def test_a_format_is_called_like_its_reader() -> None:
    for known in FORMATS:
        word = known.name.replace("-", "_")
        assert known.read.__name__ == f"read_{word}"
        assert known.looks_like.__name__ == f"is_{word}"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_told_from_the_others(name: str, tmp_path: Path) -> None:
    assert sum(known.looks_like(SAMPLES[name]) for known in FORMATS) == 1
    plain = read_file(written(tmp_path, name, SAMPLES[name]), H100)
    packed = written(tmp_path, f"{name}.gz", gzip.compress(SAMPLES[name].encode()))
    assert read_file(packed, H100).found == plain.found


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_written_is_a_table_that_a_fit_knows(name: str, tmp_path: Path) -> None:
    import pandas as pd

    tables = tables_of([read_file(written(tmp_path, name, SAMPLES[name]), H100)])
    for path in write_tables(tables, tmp_path / "out"):
        known = table_of(pd.read_csv(path))
        assert known is not None
        assert known.operator == path.stem
        assert not any(secret in path.read_text(encoding="utf-8") for secret in SECRETS)


def test_a_file_of_no_format_and_formats_that_do_not_exist(tmp_path: Path) -> None:
    file = written(tmp_path, "notes.txt", "hello\n")
    with pytest.raises(CalibrationError, match="none of the formats nccl-tests, deepep"):
        read_file(file, H100)
    with pytest.raises(CalibrationError, match="Did you mean 'nccl-tests'"):
        read_file(file, H100, "nccl-test")
    with pytest.raises(CalibrationError, match="no measurement in this deepep file"):
        read_file(file, H100, "deepep")
    for name in ("absent.log", "."):
        with pytest.raises(CalibrationError, match="cannot read"):
            read_file(tmp_path / name, H100)


def test_json_that_was_cut_is_named_by_its_line(tmp_path: Path) -> None:
    whole = json.dumps(json.loads(SAMPLES["run.json"]), indent=1)
    cut = whole[: whole.index('"results"')]
    with pytest.raises(CalibrationError, match=r"cut.json:\d+: not valid JSON"):
        read_file(written(tmp_path, "cut.json", cut.encode()), H100)


def test_files_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 2**20)
    monkeypatch.setattr(source, "MAX_TEXT_BYTES", 2**22)
    large = written(tmp_path, "large.log", b"x" * (2**20 + 1))
    with pytest.raises(CalibrationError, match="larger than 1 MiB"):
        read_file(large, H100)
    bomb = written(tmp_path, "bomb.gz", gzip.compress(b"0" * 2**23))
    assert bomb.stat().st_size < 2**20
    with pytest.raises(CalibrationError, match="unpacks to more than 4 MiB"):
        read_file(bomb, H100)


def test_the_caps() -> None:
    assert (source.MAX_FILE_BYTES, source.MAX_TEXT_BYTES) == (2**30, 2**31)


def test_damaged_gzip_is_told(tmp_path: Path) -> None:
    packed = gzip.compress(SAMPLES["all_reduce.log"].encode())
    for data in (packed[:-9], packed[:40], b"\x1f\x8b", packed[:30] + b"\xff\xff" + packed[32:]):
        with pytest.raises(CalibrationError, match="damaged or cut gzip"):
            read_file(written(tmp_path, "cut.gz", data), H100)


def test_the_same_shape_measured_again_is_one_row_with_the_median() -> None:
    (row,) = tables_of(
        [FileRead(Path("a"), "", read_torch_trace(TRACE, "a", H100))] * 2
    )["gemm"]  # fmt: skip
    # 100 and 110 us, each twice
    assert (row["time_us"], row["repeats"]) == (105.0, 4)
    odd: list[Row] = [{"m": 1, "time_us": time} for time in (3.0, 1.0, 9.0)]
    assert merged([*odd, {"m": 2, "time_us": None}]) == [
        {"m": 1, "time_us": 3.0, "repeats": 3}, {"m": 2, "time_us": None, "repeats": 1},
    ]  # fmt: skip


def test_tables_are_never_written_over(tmp_path: Path) -> None:
    written(tmp_path, "gemm.csv", "mine")
    with pytest.raises(CalibrationError, match=r"gemm\.csv exists"):
        write_tables({"collectives": [{"a": 1}], "gemm": [{"a": 1}]}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gemm.csv"]


def test_rows_of_two_formats_share_a_table(tmp_path: Path) -> None:
    (path,) = write_tables({"collectives": [{"a": 1, "b": "x,y"}, {"a": 2, "c": None}]}, tmp_path)
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert rows == [["a", "b", "c"], ["1", "x,y", ""], ["2", "", ""]]


@pytest.mark.parametrize(
    ("name", "key"),
    [("h100-sxm", "h100_sxm"), ("h100_sxm", "h100_sxm"), ("h200_sxm", "h200"), ("b200", "b200"),
     ("a100_sxm_80gb", "a100_sxm_80gb")],
)  # fmt: skip
def test_hardware_is_a_profile_or_a_key_of_the_tables(name: str, key: str) -> None:
    assert checked(Facts(hardware=name)).hardware == key


IMPOSSIBLE = [
    ({"hardware": "h100-sxn"}, "Did you mean 'h100-sxm'"),
    ({"library": "../up"}, "library"),
    ({"library_version": "1\n2"}, "library_version"),
    ({"interconnect": "a b"}, "interconnect"),
    ({"network": "fast"}, "8x400 Gb/s per node"),
    ({"network": ""}, "network"),
    ({"num_gpus": 0}, "num_gpus is 0"),
    ({"shape": {"num_expert": 8}}, "Did you mean 'num_experts'"),
    ({"shape": {"top_k": 0}}, "top_k is 0"),
]


@pytest.mark.parametrize(("given", "says"), IMPOSSIBLE)
def test_facts_that_cannot_be(given: dict[str, object], says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        checked(Facts(**{"hardware": "h100-sxm", **given}))  # type: ignore[arg-type]
