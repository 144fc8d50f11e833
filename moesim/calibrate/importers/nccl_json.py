"""The JSON file of nccl-tests (-J): one run.

Its numbers have six decimals, "nan" and booleans are texts, and it embeds every environment
variable of the run, which are dropped before anything else looks at it. Beside `results` and what
is in its rows nothing is relied on: where ranks, version and program stand differs by version, so
they are looked for.
"""

import re
from collections.abc import Iterator
from typing import Any

from moesim.calibrate.importers.nccl_run import Figure, Line, Rank, Run, collective_in, version_of
from moesim.calibrate.importers.source import load_json
from moesim.calibrate.importers.values import count, number
from moesim.errors import CalibrationError

_HOSTS = ("hostname", "host", "node")
_GROUPS = ("group", "color")
_SIZES = ("nranks", "n_ranks", "num_ranks", "total_ranks", "world_size")
_VERSION = re.compile(r"nccl.*(?:version|library)|(?:version|library).*nccl", re.IGNORECASE)
_DOTTED = re.compile(r"\d+\.\d+(?:\.\d+)?")
_DEEPEST = 8

_ROUNDING = 5e-7
"""Half of the last of six decimals."""


def json_runs(text: str, origin: str) -> list[Run]:
    """Return the run of a JSON file; CalibrationError with the line or the row that is wrong."""
    document = load_json(text, origin, forget=True)
    run, found = Run(), False
    for key, value in _walk(document):
        if isinstance(value, list) and any(_is_result(row) for row in value):
            found = True
            run.lines += [_line(row, f"{origin}: results[{i}]") for i, row in enumerate(value)]
        elif isinstance(value, list):
            run.ranks += _ranks(value)
        else:
            _take(run, key, value)
    if not found:
        raise CalibrationError(f"{origin}: no list of results, each with size and out_of_place")
    if len({rank.number for rank in run.ranks}) < len(run.ranks):
        raise CalibrationError(f"{origin}: a rank is listed twice")
    return [run]


def _walk(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every key and value, a list before what is in it; rows of results are not entered."""
    yield key, value
    if depth == _DEEPEST or (isinstance(value, list) and any(map(_is_result, value))):
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, name, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, "", depth + 1)


def _is_result(row: Any) -> bool:
    return isinstance(row, dict) and "out_of_place" in row


def _ranks(entries: list[Any]) -> list[Rank]:
    """Return the ranks that a list of devices names, or nothing where it is another list."""
    found = []
    for entry in entries:
        known = entry if isinstance(entry, dict) else {}
        rank = count(known.get("rank"))
        if rank is None:
            return []
        host = next((str(known[name]) for name in _HOSTS if name in known), "")
        group = next((count(known[name]) for name in _GROUPS if name in known), 0)
        found.append(Rank(rank, group or 0, host))
    return found


def _take(run: Run, key: str, value: Any) -> None:
    """Take what a single value says of the run."""
    if isinstance(value, str) and (named := collective_in(value)):
        run.collective = run.collective or named
    elif _VERSION.search(key):
        run.version = run.version or _version(value)
    elif key in _SIZES:
        run.num_gpus = run.num_gpus or count(value)


def _version(value: Any) -> str:
    code = count(value)
    if code is not None:
        return version_of(code) if 1000 <= code < 10**6 else ""
    found = _DOTTED.match(value) if isinstance(value, str) else None
    return found[0] if found else ""


def _line(row: Any, place: str) -> Line:
    if not _is_result(row) or not isinstance(row["out_of_place"], dict):
        raise CalibrationError(f"{place}: a result has size, count, type and out_of_place {{…}}")
    measured = row["out_of_place"]
    in_place = row.get("in_place")
    root = number(row.get("root", -1))
    size, share = (_whole(row, name, place) for name in ("size", "count"))
    if number(measured.get("time")) is None and measured.get("time") not in ("nan", "inf", None):
        raise CalibrationError(f"{place}: out_of_place.time is not a number")
    return Line(
        place=place,
        size=size,
        count=share,
        type=str(row.get("type", "")),
        redop=str(row.get("redop", "none")),
        root=-1 if root is None else int(root),
        time=Figure(number(measured.get("time")), _ROUNDING),
        rate=Figure(number(measured.get("alg_bw")), _ROUNDING),
        wrong=count(measured.get("nwrong")),
        wrong_in_place=count(in_place.get("nwrong")) if isinstance(in_place, dict) else None,
    )


def _whole(row: dict[str, Any], name: str, place: str) -> int:
    found = count(row.get(name))
    if found is None:
        raise CalibrationError(f"{place}: {name} is not a whole number from 0 up")
    return found
