"""A whole training step beside its measurement."""

from dataclasses import replace

from moesim.spec.cases import Case, CaseFile
from moesim.study.simulate import simulate
from moesim.study.validate.figures import number
from moesim.study.validate.record import Record
from moesim.study.validate.training_case import map_training
from moesim.study.validate.training_figures import compared

_STEADY = "mem_allocated_gb"
"""Weights, gradients and optimizer states: no batch changes them."""
_NO_BATCH = "no sequence length is given"


def train_step(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of speed and memory of a training step."""
    if case.part("parallel").get("seq") is None and number(case.part("measured").get(_STEADY)):
        return _between_steps(case, file, record)
    mapped = map_training(case, file)
    return compared(case, mapped, simulate(mapped.run), record)


def _between_steps(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the record of what stays between steps, of a case that does not say its batch.

    All else that was measured is skipped.
    """
    cut, chips = case.part("parallel"), case.words.get("chips")
    batch = {"mbs": 1, "gbs": chips, "seq": 4096}
    measured = {_STEADY: case.part("measured")[_STEADY]}
    words = {**case.words, "parallel": {**cut, **batch}, "measured": measured, "derived": {}}
    alone = replace(case, words=words)
    mapped = map_training(alone, file)
    left = [
        replace(record, metric=str(name), measured=number(value), reason=_NO_BATCH)
        for name, value in case.part("measured").items()
        if name != _STEADY
    ]
    return [*compared(alone, mapped, simulate(mapped.run), record), *left]
