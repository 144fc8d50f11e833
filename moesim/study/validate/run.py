"""Runs the cases of files and compares; every case comes back, with figures or with a reason."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from moesim.errors import MoesimError
from moesim.spec.cases import Case, CaseFile
from moesim.study.simulate import simulate
from moesim.study.validate.contrasts import compared_pairs
from moesim.study.validate.record import Record, blank
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.training_case import map_training
from moesim.study.validate.training_figures import compared

Progress = Callable[[int, int], None]


def validate(
    file: CaseFile, cases: Iterable[Case], *, workers: int = 1, progress: Progress | None = None
) -> list[Record]:
    """Return the records of `cases` out of `file`, then those of the pairs among them."""
    chosen = list(cases)
    records: list[Record] = []
    for done, found in enumerate(_each(file, chosen, workers), start=1):
        records += found
        if progress is not None:
            progress(done, len(chosen))
    return records + compared_pairs(file, chosen, records)


def _each(file: CaseFile, cases: list[Case], workers: int) -> Iterable[list[Record]]:
    if workers <= 1:
        yield from (records_of(case, file) for case in cases)
        return
    small = replace(file, cases=(), pairs=(), contrasts=())
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(partial(records_of, file=small), cases, chunksize=4)


def records_of(case: Case, file: CaseFile) -> list[Record]:
    """Return the records of one case; where nothing can be compared one that says why."""
    record = blank(case)
    try:
        mapped = map_training(case, file)
        found = compared(case, mapped, simulate(mapped.run), record)
    except (SkippedError, MoesimError) as error:
        return [replace(record, reason=str(error))]
    return found or [replace(record, reason="nothing that was measured can be compared")]
