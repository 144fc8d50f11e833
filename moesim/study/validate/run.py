"""Runs the cases of files and compares; every case comes back, with figures or with a reason."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from moesim.errors import MoesimError
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.contrasts import compared_pairs
from moesim.study.validate.inference.pairs import compared_ratios
from moesim.study.validate.kinds import compare
from moesim.study.validate.record import Record, blank
from moesim.study.validate.skipped import SkippedError

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
    ratios = compared_ratios(file, chosen, records)
    return [*records, *compared_pairs(file, chosen, records), *ratios]


def _each(file: CaseFile, cases: list[Case], workers: int) -> Iterable[list[Record]]:
    if workers <= 1:
        yield from (records_of(case, file) for case in cases)
        return
    small = replace(file, cases=(), pairs=(), contrasts=(), ratios=())
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(partial(records_of, file=small), cases, chunksize=2)


def records_of(case: Case, file: CaseFile) -> list[Record]:
    """Return the records of one case; where nothing can be compared one that says why."""
    record = blank(case)
    try:
        found = compare(case, file, record)
    except (SkippedError, MoesimError) as error:
        return [replace(record, reason=str(error))]
    except Exception as error:  # ours; one broken case must not cost the other hundreds
        return [replace(record, reason=f"internal error: {type(error).__name__}: {error}")]
    return found or [replace(record, reason="nothing that was measured can be compared")]
