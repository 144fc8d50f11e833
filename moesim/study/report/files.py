"""The result directory: written whole beside its place, then put there in one move."""

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moesim.errors import Problem, ScenarioError
from moesim.study.findings import Findings
from moesim.study.report import page
from moesim.study.report.summary import summary
from moesim.study.report.tables import tables
from moesim.study.report.trace import trace

MARKER = "summary.json"
"""A directory whose file of this name tells a moesim version is a result and may be replaced."""


def save(result: Findings, directory: Path) -> Path:
    """Write the result to `directory`; return it.

    Raises ScenarioError where the directory holds something else or cannot be written.
    """
    return write(lambda: contents(result), directory)


def write(make: Callable[[], Mapping[str, str | bytes]], directory: Path) -> Path:
    """Write the files that `make` returns, by name, to `directory`; return it.

    Raises ScenarioError where the directory holds something else or cannot be written.
    """
    try:
        texts = make()
        directory = directory.resolve()
        _check(directory, set(texts))
        directory.parent.mkdir(parents=True, exist_ok=True)
        waiting = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            for name, text in texts.items():
                if isinstance(text, bytes):
                    (waiting / name).write_bytes(text)
                else:
                    (waiting / name).write_text(text, encoding="utf-8", newline="\n")
            waiting.chmod(0o755)
            _swap(waiting, directory)
        finally:
            shutil.rmtree(waiting, ignore_errors=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError([Problem("", f"cannot write {directory}: {reason}")]) from None
    return directory


def _check(directory: Path, names: set[str]) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ValueError("it is a file; name a directory")
    foreign = sorted(path.name for path in directory.iterdir() if path.name not in names)
    if foreign or (any(directory.iterdir()) and not _is_result(directory)):
        also = f", such as {foreign[0]}" if foreign else ""
        raise ValueError(f"it holds files that are no moesim result{also}; name another directory")


def _is_result(directory: Path) -> bool:
    try:
        found = json.loads((directory / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "moesim_version" in found


def _swap(waiting: Path, directory: Path) -> None:
    """Put `waiting` in the place of `directory`; what was there goes only when it is."""
    if not directory.exists():
        waiting.replace(directory)
        return
    old = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    directory.replace(old)
    try:
        waiting.replace(directory)
    except OSError:
        old.replace(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def contents(result: Findings) -> dict[str, str]:
    """Return the text of every file of a result, by file name."""
    figures = summary(result)
    texts = {MARKER: to_json(figures) + "\n"}
    for name, rows in tables(result).items():
        texts[f"{name}.csv"] = to_csv(rows)
    texts["trace.json"] = json.dumps(trace(result), separators=(",", ":")) + "\n"
    texts["report.html"] = page.html(result, figures)
    return texts


def to_json(data: Any) -> str:
    """Return `data` as indented JSON; NaN and infinity are errors, not output."""
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Return `rows` as CSV with a header; the columns are those of all rows, in order."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
