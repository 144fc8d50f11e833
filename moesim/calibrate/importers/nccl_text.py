"""What nccl-tests prints: several runs one after another, between whatever else a job prints."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from moesim.calibrate.importers.nccl_run import Figure, Line, Rank, Run, collective_in, version_of
from moesim.calibrate.importers.source import lines_of, problem
from moesim.calibrate.importers.values import count, number, rounding

_TAG = re.compile(r"^(?:\[[\w,.-]{1,20}\]<std(?:out|err)>:\s?|\s*\d{1,6}:\s)")
"""What mpirun --tag-output and srun -l put before each line."""

_RANK = re.compile(
    r"#\s+Rank\s+(\d{1,9})\s+(?:Group\s+(\d{1,9})\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device\s"
)
_START = re.compile(r"#\s*(?:nThread\s+\d|Collective test starting|nccl-tests version)")
_LIBRARY = re.compile(r"nccl-library=(\d{4,6})\b")
_VERSION = re.compile(r"^#?\s*(?:NCCL|RCCL) version\s*:?\s*(\d+\.\d+(?:\.\d+)?)")
_BEGINS = re.compile(rf"{_START.pattern}|{_RANK.pattern}")
_DATA = re.compile(r"\d+\s+\d+(?:\s|$)")
_TYPED = re.compile(r"\d+\s+\d+\s+(?:u?int\d+|half|float|double|bfloat16|f8\w+)\s")
_TIMESTAMP = re.compile(r"\s+\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*\s*$")
_NONE = ("n/a", "-", "nan", "inf", "none")


@dataclass(slots=True)
class _Columns:
    """Where a value stands in a line, by the header of its table."""

    names: list[str] = field(default_factory=list)
    in_place_first: bool = False

    def at(self, name: str, *, in_place: bool = False) -> int | None:
        """Return the place of the column out of place, or of its twin in place."""
        places = [place for place, known in enumerate(self.names) if known == name]
        which = int(in_place != self.in_place_first) if len(places) == 2 else int(in_place)
        return places[which] if which < len(places) else None


def text_runs(text: str, origin: str) -> list[Run]:
    """Return the runs of a log; CalibrationError with the line that is wrong."""
    return list(_runs(lines_of(text), origin))


def _runs(lines: list[str], origin: str) -> Iterator[Run]:
    run, columns = Run(), _Columns()
    for line_number, tagged in enumerate(lines, start=1):
        line = _TAG.sub("", tagged).strip()
        named = "" if "concluded" in line else collective_in(line)
        if run.lines and (named or _BEGINS.match(line)):
            yield run
            run, columns = Run(), _Columns()
        elif run.ranks and _START.match(line):  # a run that ended before its table
            run, columns = Run(collective=run.collective), _Columns()
        if named:
            run.collective = named
        if line.startswith("#"):
            _header(line, run, columns, (origin, line_number))
        elif columns.names and _DATA.match(line):
            run.lines.append(_line(line, columns, origin, line_number))
        elif _TYPED.match(line):
            raise problem(origin, line_number, "a row above the header that names its columns")
        elif found := _VERSION.match(line):
            run.version = found[1]
    yield run


def _header(line: str, run: Run, columns: _Columns, where: tuple[str, int]) -> None:
    words = line[1:].split()
    if rank := _RANK.match(line):
        _add(run, Rank(int(rank[1]), int(rank[2] or 0), rank[3]), where)
    elif words[:2] == ["size", "count"]:
        columns.names = [word for word in words if word != "timestamp"]
    elif "out-of-place" in words and "in-place" in words:
        columns.in_place_first = words.index("in-place") < words.index("out-of-place")
    elif "(GB/s)" in words and "(us)" not in words:
        raise problem(*where, "times must be in microseconds, (us)")
    elif library := _LIBRARY.search(line):
        run.version = version_of(int(library[1]))
    elif version := _VERSION.match(line):
        run.version = version[1]


def _add(run: Run, rank: Rank, where: tuple[str, int]) -> None:
    if any(rank.number == known.number for known in run.ranks):
        raise problem(
            *where,
            "a rank is listed twice: several processes print into this file, each a run of its "
            "own (is nccl-tests built with MPI=1?)",
        )
    run.ranks.append(rank)


def _line(text: str, columns: _Columns, origin: str, line_number: int) -> Line:
    words, names = _TIMESTAMP.sub("", text).split(), columns.names
    if len(words) != len(names):
        message = f"{len(words)} columns, but the header has {len(names)}: is the line cut?"
        raise problem(origin, line_number, message)
    cells = _Cells(words, columns, origin, line_number)
    return Line(
        place=f"{origin}:{line_number}",
        size=cells.whole("size"),
        count=cells.whole("count"),
        type=cells.word("type"),
        redop=cells.word("redop"),
        root=-1 if cells.word("root") in ("-1", "none") else cells.whole("root"),
        time=cells.figure("time"),
        rate=cells.figure("algbw"),
        wrong=count(cells.number("#wrong")),
        wrong_in_place=count(cells.number("#wrong", in_place=True)),
    )


@dataclass(frozen=True, slots=True)
class _Cells:
    """The words of a line, by column."""

    words: list[str]
    columns: _Columns
    origin: str
    line_number: int

    def word(self, name: str, *, in_place: bool = False) -> str:
        """Return the word under `name`; a column that the header lacks holds none."""
        place = self.columns.at(name, in_place=in_place)
        return "none" if place is None else self.words[place]

    def number(self, name: str, *, in_place: bool = False) -> float | None:
        """Return the number under `name`, None where it says that there is none."""
        word = self.word(name, in_place=in_place)
        found = number(word)
        if found is None and word.lower() not in _NONE:
            raise problem(self.origin, self.line_number, f"column {name} is not a number")
        return found

    def figure(self, name: str) -> Figure:
        """Return the number under `name` with its rounding."""
        return Figure(self.number(name), rounding(self.word(name)))

    def whole(self, name: str) -> int:
        """Return the whole number under `name`."""
        found = count(self.word(name))
        if found is None:
            message = f"column {name} is not a whole number from 0 up"
            raise problem(self.origin, self.line_number, message)
        return found
