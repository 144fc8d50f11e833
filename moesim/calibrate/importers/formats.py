"""Every format that can be read, by the name that the command line and the README use."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from moesim.calibrate.importers.deepep import is_deepep, read_deepep
from moesim.calibrate.importers.facts import Facts
from moesim.calibrate.importers.nccl_tests import is_nccl_tests, read_nccl_tests
from moesim.calibrate.importers.rows import Imported, Row, merged
from moesim.calibrate.importers.source import load_json, read_text
from moesim.calibrate.importers.torch_trace import is_torch_trace, read_torch_trace
from moesim.errors import CalibrationError, nearest

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Format:
    """How files of one kind are told from others and read."""

    name: str
    looks_like: Callable[[str], bool]
    read: Callable[[str, str, Facts], Imported]


FORMATS = (
    Format("nccl-tests", is_nccl_tests, read_nccl_tests),
    Format("deepep", is_deepep, read_deepep),
    Format("torch-trace", is_torch_trace, read_torch_trace),
)
"""A name is that of its function: nccl-tests is read by read_nccl_tests."""


@dataclass(frozen=True, slots=True)
class FileRead:
    """What one file gave, and what it was."""

    path: Path
    format: str
    found: Imported


def read_file(path: Path, facts: Facts, name: str = AUTO) -> FileRead:
    """Return what a file holds; CalibrationError where its format is unknown or it has no rows."""
    text = read_text(path)
    chosen = _chosen(name, text, path)
    found = chosen.read(text, str(path), facts)
    if not any(found.tables.values()) and not found.classes:
        why = "; ".join(f"{reason} ({times})" for reason, times in found.left_out.items())
        why = f": left out {why}" if why else ", is it complete?"
        raise CalibrationError(f"{path}: no measurement in this {chosen.name} file{why}")
    return FileRead(path, chosen.name, found)


def _chosen(name: str, text: str, path: Path) -> Format:
    names = [known.name for known in FORMATS]
    if name != AUTO:
        found = [known for known in FORMATS if known.name == name]
        if not found:
            allowed = (AUTO, *names)
            hint = nearest(name, allowed)
            raise CalibrationError(f"no format {name!r}: one of {', '.join(allowed)}.{hint}")
        return found[0]
    for known in FORMATS:
        if known.looks_like(text):
            return known
    if text.lstrip()[:1] in ("{", "["):  # one that was cut says where rather than nothing
        load_json(text, str(path))
    raise CalibrationError(f"{path}: none of the formats {', '.join(names)}: --format says which")


def tables_of(files: Iterable[FileRead]) -> dict[str, list[Row]]:
    """Return the rows of all files by kind of table, the same shape measured twice as one row."""
    rows: dict[str, list[Row]] = {}
    for file in files:
        for table, found in file.found.tables.items():
            rows.setdefault(table, []).extend(found)
    return {table: merged(found) for table, found in sorted(rows.items()) if found}
