"""Reads measurement tables into groups: one library on one device, one operator, one dtype."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.calibrate.table_file import read_table
from moesim.calibrate.table_rows import COLUMNS, complete, lacking
from moesim.calibrate.tables import TABLES, Table
from moesim.cost.curves import Array, Samples
from moesim.cost.families.table import prepared
from moesim.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that one curve is fitted to, or judged on."""

    operator: str
    family: str
    hardware: str
    library: str
    version: str
    dtype: str
    variant: str
    samples: Samples
    seconds: Array
    shapes: NDArray[np.uint64]
    """A number for each row's family of shapes, and one for the row's own shape."""
    points: NDArray[np.uint64]
    sources: tuple[str, ...]
    part: str = ""
    """Which part of the rows it is, where they are judged apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Rows that no curve is fitted to, and why."""

    operator: str
    hardware: str
    library: str
    dtype: str
    rows: int
    reason: str


def table_files(paths: list[Path]) -> list[Path]:
    """Return the measurement files among `paths`; a directory stands for those in it.

    Raises CalibrationError where there is none.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in inside if file.name.endswith(_SUFFIXES)]
    if not found:
        listed = ", ".join(str(path) for path in paths)
        raise CalibrationError(f"no measurement tables ({', '.join(_SUFFIXES)}) in {listed}")
    return found


def digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read_groups(file: Path) -> tuple[list[Group], list[Skipped]]:
    """Return the groups of a measurement file and what was left out of them.

    A file that is no measurement table, or that lacks a column which its kind needs, gives one
    Skipped. Raises CalibrationError where it cannot be read.
    """
    frame = read_table(file)
    table = table_of(frame)
    missing = _missing(frame, table)
    if table is None or missing:
        reason = f"lacks {', '.join(missing)}" if missing else "no table that a fit can use"
        return [], [Skipped(operator=file.name, hardware="", library="", dtype="",
                            rows=len(frame), reason=reason)]  # fmt: skip
    frame, reasons = complete(_named(frame), COLUMNS[table.operator], _place(file))
    unusable = _named(frame[reasons != ""].assign(reason=reasons[reasons != ""]))
    skipped = list(_skipped(table, unusable))
    if len(unusable) == len(frame):
        return [], skipped
    frame = _named(table.normal(frame[reasons == ""]))
    frame = frame.assign(reason=frame["reason"].mask(_untimed(frame), "no time published"))
    skipped += _skipped(table, frame)
    return list(_groups(table, frame[frame["reason"] == ""])), skipped


def _place(file: Path) -> Callable[[int], str]:
    """Return how a row of the file is called: a line where it is text below a head."""
    if file.suffix == ".parquet":
        return lambda row: f"row {row + 1:,}"
    return lambda row: f"line {row + 2:,}"


def _untimed(frame: "pd.DataFrame") -> "pd.Series[bool]":
    return (frame["reason"] == "") & frame["time_us"].isna()


def table_of(frame: "pd.DataFrame") -> Table | None:
    """Return the kind of table that `frame` is, by its columns."""
    columns = set(frame.columns)
    return next((table for table in TABLES if columns >= set(table.needs)), None)


def _missing(frame: "pd.DataFrame", table: Table | None) -> tuple[str, ...]:
    """Return the columns that `frame` lacks; of no known kind, those of the kinds it is most like.

    Nothing where it has no times, or no more than half of any kind's columns.
    """
    if table is not None:
        return lacking(frame, COLUMNS[table.operator])
    columns = set(frame.columns)
    shares = [len(columns & set(one.needs)) / len(one.needs) for one in TABLES]
    most = max(shares)
    if most <= 0.5 or "time_us" not in columns:
        return ()
    like = [one for one, share in zip(TABLES, shares, strict=True) if share == most]
    return (" or ".join(" and ".join(n for n in one.needs if n not in columns) for one in like),)


_OTHER_NAMES = {"library": ("framework",), "version": ("framework_version", "library_version")}


def _named(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Give library and version one name each, and every row a source."""
    renamed = frame
    for ours, others in _OTHER_NAMES.items():
        if ours not in renamed:
            theirs = next((name for name in others if name in renamed), "")
            renamed = renamed.assign(**{ours: renamed.get(theirs, "unknown")})
    if "source" not in renamed:
        renamed = renamed.assign(source="unknown")
    text = {name: renamed[name].astype(object).fillna("unknown").astype(str)
            for name in ("hardware", "library", "version", "dtype", "source")
            if name in renamed}  # fmt: skip
    return renamed.assign(**text)


def _skipped(table: Table, frame: "pd.DataFrame") -> Iterator[Skipped]:
    left_out = frame[frame["reason"] != ""]
    keys = ["hardware", "library", "dtype", "reason"]
    if "dtype" not in left_out:  # a table that names the payload's type only
        left_out = left_out.assign(dtype="")
    for key, rows in left_out.groupby(keys, sort=True):
        hardware, library, dtype, reason = (str(part) for part in key)
        yield Skipped(operator=table.operator, hardware=hardware, library=library, dtype=dtype,
                      rows=len(rows), reason=reason)  # fmt: skip


_KEYS = ["family", "hardware", "library", "version", "dtype", "variant"]


def _groups(table: Table, frame: "pd.DataFrame") -> Iterator[Group]:
    for key, rows in frame.groupby(_KEYS, sort=True):
        family, hardware, library, version, dtype, variant = (str(part) for part in key)
        numeric = rows.select_dtypes(include=["number", "bool"])
        numeric = numeric.drop(columns=[name for name in numeric if is_outcome(str(name))])
        samples = {str(name): numeric[name].to_numpy(dtype=float) for name in numeric}
        yield Group(
            operator=table.operator,
            family=family,
            hardware=hardware,
            library=library,
            version=version,
            dtype=dtype,
            variant=variant,
            samples=prepared(family, samples),
            seconds=rows["time_us"].to_numpy(dtype=float) * 1e-6,
            shapes=_hash([samples[name] for name in table.shape if name in samples], len(rows)),
            points=_hash([samples[name] for name in samples if not _is_drawn(name)], len(rows)),
            sources=tuple(sorted(rows["source"].unique())),
        )


def joined(groups: Iterable[Group]) -> list[Group]:
    """Return the groups with those of the same kind as one: rows of several files count together.

    A column that only some of them have is dropped.
    """
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        found.setdefault(tuple(getattr(group, name) for name in _KEYS), []).append(group)
    return [_joined(same) if len(same) > 1 else same[0] for same in found.values()]


def _joined(same: list[Group]) -> Group:
    names = [name for name in same[0].samples if all(name in one.samples for one in same)]
    return replace(
        same[0],
        samples={name: np.concatenate([one.samples[name] for one in same]) for name in names},
        seconds=np.concatenate([one.seconds for one in same]),
        shapes=np.concatenate([one.shapes for one in same]),
        points=np.concatenate([one.points for one in same]),
        sources=tuple(sorted({source for one in same for source in one.sources})),
    )


def is_outcome(column: str) -> bool:
    """Tell columns that say how it went from those that say what was asked for."""
    return column.endswith(("_us", "_GB_per_s")) or column.startswith(("reported", "repeats"))


def _is_drawn(column: str) -> bool:
    """Tell columns that say how a load was drawn: the shape of a row is what it was before."""
    return column.startswith("drawn_")


def _hash(columns: list[Array], rows: int) -> NDArray[np.uint64]:
    """Return a number for each row that depends on these columns only (splitmix64)."""
    mixed = np.full(rows, 0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            value = np.nan_to_num(column, nan=-1.0).view(np.uint64)
            mixed = (mixed ^ value) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(27)
            mixed *= np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
    return mixed


def held_out(group: Group) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows a fit never sees: whole families of shapes, and single points.

    One family in five, and one point in ten of the others, by a hash of the shape: the same rows
    in every version of a table.
    """
    families = group.shapes % np.uint64(5) == 0
    if families.all() or len(np.unique(group.shapes)) < 5:
        families = np.zeros(len(group.seconds), dtype=bool)
    points = ~families & (group.points % np.uint64(10) == 0)
    return families, points
