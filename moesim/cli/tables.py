"""What the listing commands print: a table for people, or JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer


def print_json(data: Any) -> None:
    """Print `data` as JSON with two spaces."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, object]], right: Iterable[str] = ()) -> None:
    """Print `rows` under the keys of the first; the columns in `right` are flush right."""
    if not rows:
        return
    titles = list(rows[0])
    texts = [titles, *([str(row[title]) for title in titles] for row in rows)]
    widths = [max(len(line[i]) for line in texts) for i in range(len(titles))]
    flush_right = set(right)
    for line in texts:
        cells = [
            text.rjust(width) if title in flush_right else text.ljust(width)
            for title, text, width in zip(titles, line, widths, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())
