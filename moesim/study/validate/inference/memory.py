"""Weights and room for the cache, against what engines log and papers state."""

from dataclasses import replace

from moesim.cost.families.number_types import NUMBER_TYPES
from moesim.cost.serving.memory import cache_bytes, weights
from moesim.errors import MoesimError
from moesim.model.parameters import total_params
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.figures import number
from moesim.study.validate.inference.deployment import Deployments
from moesim.study.validate.inference.models import class_of, model_of
from moesim.study.validate.inference.words import Row, Said, rows, software_of
from moesim.study.validate.record import Record, ran
from moesim.study.validate.skipped import SkippedError

PROCESS = "gpu_memory_mb"
"""Column of what a process holds, in MiB as PyTorch counts."""
_CAPACITY = {"gpu_kv_cache_tokens": 1, "total_kv_blocks_as_listed": 16}
"""Tokens of each unit in which engines log the room for their cache."""


def memory_rows(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of weights and of cache capacity; a row that lacks something says so."""
    deployments = Deployments(file)
    found: list[Record] = []
    for place, row in enumerate(rows(case)):
        said = Said(case, row)
        base = replace(record, row=place, software=software_of(case))
        try:
            found += _of_row(said, deployments, base)
        except (SkippedError, MoesimError) as error:
            found.append(replace(base, reason=str(error)))
    if found and all(one.status != "ran" for one in found):
        raise SkippedError(found[0].reason)
    return found


def _of_row(said: Said, deployments: Deployments, base: Record) -> list[Record]:
    name = str(said.row.get("model") or said.case.text("model"))
    architecture = model_of(name, deployments.file)
    base = replace(base, cls=class_of(architecture), model=name)
    found = _capacity(said, deployments, name, base)
    for column, predicted in _weights(said.row, total_params(architecture)).items():
        if (measured := number(said.row.get(column))) is not None:
            found.append(ran(base, column, predicted, measured, row=base.row))
    found += _process(said, deployments, name, base)
    request = number(said.row.get("kv_mb_per_request_at_3k_tokens"))
    if request is not None:
        served = deployments.of(said, name)
        predicted = cache_bytes(served.on.architecture, served.on) * 3072 / 1e6
        found.append(ran(base, "kv_mb_per_request_at_3k_tokens", predicted, request, row=base.row))
    return found


def _capacity(said: Said, deployments: Deployments, name: str, base: Record) -> list[Record]:
    found = []
    for column, tokens in _CAPACITY.items():
        measured = number(said.row.get(column))
        if measured is None:
            continue
        served = deployments.of(said, name)
        held = served.rules.blocks * served.rules.block_tokens / tokens
        base = replace(base, assumed=tuple(said.assumed))
        found.append(ran(base, column, held, measured, row=base.row))
        base = replace(base, metric="")
    return found


def holds_memory(case: Case) -> bool:
    """Tell whether a case states what processes hold, of a framework whose speed is not known."""
    framework = str(case.part("engine").get("name") or "").casefold()
    return framework == "transformers" and PROCESS in (case.part("measured").get("columns") or ())


def _process(said: Said, deployments: Deployments, name: str, base: Record) -> list[Record]:
    """Return what a process with one sequence holds: weights and cache, no engine's pool.

    Not counted: activations and the allocator's own, some ten MiB.
    """
    measured = number(said.row.get(PROCESS))
    prompt, output = said.figure("isl"), said.figure("osl")
    if not measured or not prompt or not output:
        return []
    plain = replace(said.case, words={**said.case.words, "engine": {"name": "vllm"}})
    on = deployments.of(replace(said, case=plain), name).on
    cached = cache_bytes(on.architecture, on) * (prompt + output)
    predicted = (weights(on).total + cached) / 2**20
    return [ran(base, PROCESS, predicted, measured, row=base.row)]


def _weights(row: Row, parameters: float) -> dict[str, float]:
    """Return what a row may state of the weights of all devices together.

    At a prompt of one token what a process takes is all but its weights.
    """
    found = {
        "uncompressed_tb": 2.0 * parameters / 1e12,
        "weights_gb_fp8": parameters / 1e9,
        "weights_gb_fp4": NUMBER_TYPES["nvfp4"].weight_bytes * parameters / 1e9,
    }
    width = 2.0 if str(row.get("quant") or "bf16").casefold() == "bf16" else None
    if width is not None and (row.get("isl") in (1, None)):
        found["memory_gb"] = width * parameters / 2**30
    return found
