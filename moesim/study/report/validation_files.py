"""A validation as files: records as JSON and CSV, scores as CSV, and the page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moesim.study.report import files
from moesim.study.report.validation_page import html
from moesim.study.validate.record import Record, as_json
from moesim.study.validate.scores import DIMENSIONS, Score, headline, scores
from moesim.version import __version__


def contents(records: Sequence[Record]) -> dict[str, str]:
    """Return the text of every file, by file name."""
    rows = [as_json(one) for one in records]
    flat = [row | {"assumed": "; ".join(row["assumed"])} for row in rows]
    summed = {
        "moesim_version": __version__,
        "headline": [_row(one) for one in headline(records)],
        "groups": {
            name: [_row(one) for one in scores(records, key)] for name, key in DIMENSIONS.items()
        },
    }
    groups = [
        {"by": name, **_row(one)}
        for name, key in DIMENSIONS.items()
        for one in scores(records, key)
    ]
    return {
        files.MARKER: files.to_json(summed) + "\n",
        "records.json": files.to_json(rows) + "\n",
        "records.csv": files.to_csv(flat),
        "groups.csv": files.to_csv(groups),
        "report.html": html(records),
    }


def _row(score: Score) -> dict[str, Any]:
    return asdict(score) | {"name": " / ".join(score.name)}


def save(records: Sequence[Record], directory: Path) -> Path:
    """Write all files to `directory`; return it."""
    return files.write(lambda: contents(records), directory)
