"""A whole training step beside its measurement."""

from moesim.spec.cases import Case, CaseFile
from moesim.study.simulate import simulate
from moesim.study.validate.record import Record
from moesim.study.validate.training_case import map_training
from moesim.study.validate.training_figures import compared


def train_step(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of speed and memory of a training step."""
    mapped = map_training(case, file)
    return compared(case, mapped, simulate(mapped.run), record)
