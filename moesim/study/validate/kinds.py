"""What is compared of each kind of case: a table from kind to function."""

from collections.abc import Callable, Mapping

from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.chunk import chunk_pair
from moesim.study.validate.figures import not_compared
from moesim.study.validate.inference.kinds import INFERENCE
from moesim.study.validate.kernel import grouped_gemm
from moesim.study.validate.layer import moe_layer
from moesim.study.validate.ratio import padding_ratio
from moesim.study.validate.record import Record
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.train_step import train_step

Compare = Callable[[Case, CaseFile, Record], list[Record]]

KINDS: Mapping[str, Compare] = {
    "train_step": train_step,
    "moe_layer_fwd_bwd": moe_layer,
    "chunk_fwd_bwd": chunk_pair,
    "kernel": grouped_gemm,
    "ratio": padding_ratio,
    **INFERENCE,
}


def compare(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of `case` by its kind: compared figures, then those that are not.

    Raises SkippedError where nothing of it can be compared.
    """
    of_kind = KINDS.get(case.kind)
    if of_kind is None:
        raise SkippedError(f"kind {case.kind} is not compared")
    found = of_kind(case, file, record)
    if case.kind in INFERENCE:
        return found
    return [*found, *not_compared(case, found, record)]
