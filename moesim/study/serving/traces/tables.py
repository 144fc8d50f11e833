"""Traces in CSV: Azure LLM inference, BurstGPT, lengths alone."""

import csv
from collections.abc import Callable, Sequence
from datetime import date

from moesim.study.serving.traces.rows import Lines, RowError, Rows, picoseconds, whole

_DAY_PS = 86_400 * 10**12

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")
LENGTHS = ("num_prefill_tokens", "num_decode_tokens")

Take = Callable[[Sequence[str]], None]


def table(lines: Lines, header: str) -> Rows | None:
    """Return the rows of the CSV whose first line is `header`; None where no format has it.

    Azure: Azure/AzurePublicDataset, data/AzureLLMInferenceTrace_*.csv (2023, 2024). BurstGPT:
    HPMLL/BurstGPT, of 6 columns, or of 8 with Session ID and Elapsed time; a request without
    response tokens failed and is left out. Lengths: as in vidur's processed traces, with
    arrived_at in seconds or without.
    """
    names = [name.strip() for name in header.split(",")]
    rows = Rows()
    for known, taking in ((AZURE, _azure), (BURSTGPT, _burstgpt), (LENGTHS, _lengths)):
        if set(known) <= set(names):
            _read(lines, names, taking(rows, names))
            return rows
    return None


def _read(lines: Lines, names: list[str], take: Take) -> None:
    for number, line in lines:
        cells = next(csv.reader([line])) if '"' in line else line.split(",")
        if len(cells) != len(names):
            raise RowError(number, f"has {len(cells)} columns, the header has {len(names)}")
        try:
            take(cells)
        except ValueError as error:
            raise RowError(number, str(error)) from None


def _azure(rows: Rows, names: list[str]) -> Take:
    at, prompt, output = (names.index(name) for name in AZURE)
    rows.counts_from_start = False

    def take(cells: Sequence[str]) -> None:
        time = _date_ps(cells[at])
        if rows.lengths(whole(cells[prompt], AZURE[1]), whole(cells[output], AZURE[2])):
            rows.at.append(time)

    return take


def _date_ps(text: str) -> int:
    """Return picoseconds of a date and time such as 2023-11-16 18:17:03.9799600, or with +00:00."""
    day, _, clock = text.strip().replace("T", " ").partition(" ")
    clock = clock.removesuffix("+00:00").removesuffix("Z")
    try:
        days = date.fromisoformat(day).toordinal()
        hours, minutes, seconds = clock.split(":")
        sixties = int(hours) * 60 + int(minutes)
        fraction = picoseconds(seconds, "TIMESTAMP", 0)
    except ValueError:
        message = "TIMESTAMP is not a date and time such as 2023-11-16 18:17:03.9799600"
        raise ValueError(f"{message}: '{text[:60]}'") from None
    return days * _DAY_PS + sixties * 60 * 10**12 + fraction


def _burstgpt(rows: Rows, names: list[str]) -> Take:
    at, prompt, output = (names.index(name) for name in BURSTGPT)
    place = names.index("Session ID") if "Session ID" in names else None
    turns: dict[str, int] = {}

    def take(cells: Sequence[str]) -> None:
        time = picoseconds(cells[at], BURSTGPT[0], 0)
        if rows.lengths(whole(cells[prompt], BURSTGPT[1]), whole(cells[output], BURSTGPT[2])):
            rows.at.append(time)
            if place is not None:
                name = cells[place].strip() or f"alone {len(rows.prompt)}"
                turns[name] = turns.get(name, -1) + 1
                rows.session.append(name)
                rows.turn.append(turns[name])

    return take


def _lengths(rows: Rows, names: list[str]) -> Take:
    prompt, output = (names.index(name) for name in LENGTHS)
    at = names.index("arrived_at") if "arrived_at" in names else None

    def take(cells: Sequence[str]) -> None:
        time = 0 if at is None else picoseconds(cells[at], "arrived_at", 0)
        sizes = whole(cells[prompt], LENGTHS[0]), whole(cells[output], LENGTHS[1])
        if rows.lengths(*sizes) and at is not None:
            rows.at.append(time)

    return take
