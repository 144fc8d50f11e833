"""What is compared of each kind of inference case: a table from kind to function."""

from collections.abc import Callable, Mapping

from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.inference.curve import serving_rows
from moesim.study.validate.inference.exchange_kernels import exchange_kernels
from moesim.study.validate.inference.memory import holds_memory, memory_rows
from moesim.study.validate.inference.phases import phases, states_batch
from moesim.study.validate.inference.products import products
from moesim.study.validate.record import Record

Compare = Callable[[Case, CaseFile, Record], list[Record]]


def serving_point(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of a point: memory, a step whose batch is stated, or requests."""
    if holds_memory(case):
        return memory_rows(case, file, record)
    return (phases if states_batch(case) else serving_rows)(case, file, record)


INFERENCE: Mapping[str, Compare] = {
    "serving_curve": serving_rows,
    "serving_point": serving_point,
    "offline_throughput": serving_rows,
    "phase_breakdown": phases,
    "kernel_comm": exchange_kernels,
    "kernel_compute": products,
    "memory": memory_rows,
}
