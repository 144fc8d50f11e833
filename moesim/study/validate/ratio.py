"""Speed without padding over speed with buffers as large as the fullest expert's load."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from moesim.spec.cases import Case, CaseFile
from moesim.spec.routing import CapacitySpec
from moesim.study.outcome import Outcome
from moesim.study.resolve import Training
from moesim.study.simulate import simulate
from moesim.study.validate.figures import compared_figures, number
from moesim.study.validate.record import Record
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.training_case import map_training

METRIC = "speedup_over_tutel_dropless"
_BLOCK_ROWS = 128
"""Rows of a block of MegaBlocks' products (arXiv 2211.15841, section 5.1.2)."""
_MICRO = "micro batch not stated: on each side the largest power of two that fits"
"""So did the paper (section 6.1); nothing is computed again."""


def padding_ratio(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the record of a speed-up over Tutel without drops.

    Tutel without drops pads every expert's buffer to the fullest expert's load; block-sparse
    products pad each expert to whole blocks only. What padding takes in memory also allows the
    other side larger micro-batches (arXiv 2211.15841, section 6.1).
    """
    if number(case.part("measured").get(METRIC)) is None:
        raise SkippedError(f"of ratios only {METRIC} is compared")
    sides: dict[bool, Outcome] = {}
    assumed: tuple[str, ...] = ()
    for padded in (False, True):
        for size in _micro_batches(case):
            mapped = map_training(_with(case, size), file)
            outcome = simulate(_routed(mapped.run, padded=padded))
            assumed = mapped.assumed
            sides[padded] = outcome
            if outcome.fits:
                break
        if not sides[padded].fits:
            raise SkippedError("one of the sides does not fit at the smallest micro batch")
    ratio = sides[True].metrics.step_s / sides[False].metrics.step_s
    sizes = [sides[one].run.scenario.training.micro_batch for one in (False, True)]
    if _stated(case) is None:
        assumed = (*assumed, f"{_MICRO}: {sizes[0]} and {sizes[1]}")
    return compared_figures(case, {METRIC: ratio}, replace(record, assumed=assumed))


def _routed(run: Training, *, padded: bool) -> Training:
    """Return `run` with buffers of the fullest expert's size, or with rows in whole blocks."""
    update: dict[str, Any] = {"capacity": None, "block_rows": _BLOCK_ROWS}
    if padded:
        fullest = CapacitySpec(factor=0, formula="tutel", pad=True)
        update = {"capacity": fullest, "block_rows": None}
    routing = run.scenario.routing.model_copy(update=update)
    return replace(run, scenario=run.scenario.model_copy(update={"routing": routing}))


def _stated(case: Case) -> Any:
    return case.part("parallel").get("mbs")


def _micro_batches(case: Case) -> Iterator[Any]:
    """Yield the micro-batches to try, the largest first; the stated one alone where there is."""
    cut, chips = case.part("parallel"), case.words.get("chips")
    if _stated(case) is not None:
        yield _stated(case)
        return
    batch, model = cut.get("gbs"), 1
    for name in ("tp", "pp", "cp"):
        value = cut.get(name, 1)
        model *= value if isinstance(value, int) and value > 0 else 1
    if not isinstance(batch, int) or not isinstance(chips, int) or not 0 < chips <= batch * model:
        raise SkippedError("a ratio needs chips and a global batch of one sequence each at least")
    most = batch * model // chips
    size = 1 << (min(most, 1024).bit_length() - 1)
    while size:
        if most % size == 0:
            yield size
        size //= 2


def _with(case: Case, micro_batch: Any) -> Case:
    """Return `case` with this micro-batch; what does not fit gets a smaller one, nothing again."""
    cut = {**case.part("parallel"), "mbs": micro_batch}
    options = {"recompute": "none", **case.part("options")}
    return replace(case, words={**case.words, "parallel": cut, "options": options})
