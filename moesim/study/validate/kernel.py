"""The grouped products of one MoE layer on one device, forward and backward."""

from collections.abc import Iterable
from dataclasses import replace

from moesim.cost.pricing import Machine, machine, price
from moesim.model.architecture import MoeFfn, layers_of
from moesim.model.backward import backward
from moesim.model.ffn import ffn_operators
from moesim.model.operators import GroupedGemm, Operator
from moesim.spec.cases import Case, CaseFile
from moesim.study.resolve import Training
from moesim.study.validate.figures import compared_figures
from moesim.study.validate.older_kernels import NOTE, older_kernels
from moesim.study.validate.record import Record
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.training_case import map_training

_ROWS = "equal rows for every local expert"


def grouped_gemm(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of the grouped products of a layer; nothing else of it is timed.

    Gate and up projection are one product, as wide as both.
    """
    tokens, experts, top_k = (_count(case, name) for name in _NAMES)
    mapped = map_training(_on_one_device(case, tokens), file)
    run = mapped.run
    rows = even_rows(tokens * top_k, experts)
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    products = [one for one in _operators(run, rows) if isinstance(one, GroupedGemm)]
    assumed = [one for one in mapped.assumed if one.startswith(("fp8", "mxfp8"))]
    library, faster = case.part("options").get("kernel"), 1.0
    older = older_kernels(str(library), on, products[0].dtype) if products else None
    if older is not None:
        on, faster = older
        assumed.append(f"{library}: {NOTE}")
    elif library is not None:
        assumed.append(f"{library}: priced like the trainer's own grouped products")
    predicted = {
        "forward_ms": 1e3 / faster * _seconds(products, on),
        "backward_ms": 1e3 / faster * _seconds((g for one in products for g in backward(one)), on),
    }
    return compared_figures(case, predicted, replace(record, assumed=(*assumed, _ROWS)))


_NAMES = ("tokens_before_topk", "local_experts", "top_k")
_LARGEST = 10**9


def _count(case: Case, name: str) -> int:
    value = case.part("parallel").get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise SkippedError(
            "only grouped products of a layer are compared: parallel must say "
            f"{', '.join(_NAMES)} as whole numbers"
        )
    return value


def even_rows(rows: int, experts: int) -> tuple[int, ...]:
    """Return the rows of each expert, as equal as whole numbers allow."""
    each, left = divmod(rows, experts)
    return (each + 1,) * left + (each,) * (experts - left)


def _on_one_device(case: Case, tokens: int) -> Case:
    one = {"mbs": 1, "gbs": 1, "seq": tokens}
    return replace(case, words={**case.words, "parallel": one, "chips": 1})


def _operators(run: Training, rows: tuple[int, ...]) -> list[Operator]:
    layers = layers_of(run.architecture.decoder)
    ffn = next((one.ffn for one in layers if isinstance(one.ffn, MoeFfn)), None)
    if ffn is None:
        raise SkippedError("the model has no layer with experts")
    return ffn_operators(
        ffn, run.architecture.hidden, run.job.batch.decoder, run.job.shard, rows, None
    )


def _seconds(operators: Iterable[Operator], on: Machine) -> float:
    return sum(price(one, on).seconds for one in operators)
