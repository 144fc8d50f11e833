"""Writes measurement tables as CSV, one file for each kind, and never over another file."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from moesim.calibrate.importers.rows import Row
from moesim.errors import CalibrationError


def write_tables(tables: Mapping[str, Sequence[Row]], out: Path) -> list[Path]:
    """Write each table to NAME.csv in the folder `out`; CalibrationError where one is there."""
    paths = [out / f"{name}.csv" for name in tables]
    for path in paths:
        if path.exists():
            raise CalibrationError(f"{path} exists: move it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    for path, rows in zip(paths, tables.values(), strict=True):
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("x", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return paths
