from pathlib import Path

import pytest

from moesim.calibrate.samples import Kept, by_curve, load, make_room, save
from moesim.errors import CalibrationError
from tests.unit.calibrate.made_up import samples, target


def test_samples_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x-samples.parquet"
    kept = Kept(samples=tuple(samples()), spent_s=12.5)
    save(path, target().fingerprint, kept)
    assert load(path, target().fingerprint) == kept
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_samples_of_another_device_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    save(path, target().fingerprint, Kept(samples=tuple(samples())))
    assert load(path, target(compute_units=4).fingerprint) == Kept()


def test_nothing_was_measured_yet(tmp_path: Path) -> None:
    assert load(tmp_path / "none.parquet", "x") == Kept()


def test_another_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(CalibrationError, match="--fresh"):
        load(path, "x")


def test_a_table_of_somebody_else_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(CalibrationError, match="does not hold samples"):
        load(path, "x")


def test_samples_are_sorted_by_curve() -> None:
    found = by_curve(samples())
    assert len(found[("gemm", "fp32", "")]) >= 10
    assert all(sample.case.curve == key for key, group in found.items() for sample in group)


def test_a_fingerprint_is_of_the_device_not_of_the_user() -> None:
    assert target().fingerprint == target().fingerprint
    assert target().fingerprint != target(torch_version="2.12.0").fingerprint
    assert target().fingerprint != target(processes=2).fingerprint
    assert target().slug == "cpu-paper-cpu-2t"
    assert target(processes=2).slug == "cpu-paper-cpu-2t-x2"


def test_where_nothing_can_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="Not a directory"):
        make_room(tmp_path / "file" / "below" / "paper-samples.parquet")
    make_room(tmp_path / "new" / "paper-samples.parquet")
    assert list((tmp_path / "new").iterdir()) == []
