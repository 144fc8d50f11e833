"""Steps of prefill and decode whose batch is stated: prices of one iteration."""

from dataclasses import replace

from moesim.cost.iteration import PS_PER_S, step_ps
from moesim.errors import MoesimError
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.figures import number
from moesim.study.validate.inference.deployment import Deployments, Served
from moesim.study.validate.inference.models import class_of
from moesim.study.validate.inference.words import Said, rows, software_of
from moesim.study.validate.record import Record, ran
from moesim.study.validate.skipped import SkippedError

_PER_NODE = 8
"""Devices of a node where these sources count by nodes (H100 and H800)."""
_ONE_BATCH = (
    "one batch at a time: two micro-batches that hide each other's exchange are not modelled"
)


def phases(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of a step; SkippedError where no batch is stated."""
    deployments = Deployments(file)
    found: list[Record] = []
    for place, row in enumerate(rows(case)):
        said = Said(_as_ranks(case), row)
        base = replace(record, row=place, software=software_of(case))
        try:
            found += _of_row(said, deployments, base)
        except (SkippedError, MoesimError) as error:
            found.append(replace(base, reason=str(error)))
    if found and all(one.status != "ran" for one in found):
        raise SkippedError(found[0].reason)
    return found


def states_batch(case: Case) -> bool:
    """Return whether a case says the batch of a step instead of requests."""
    workload = case.part("workload")
    return any(number(workload.get(key)) for key in ("tokens_per_gpu", "batch_per_gpu"))


def _as_ranks(case: Case) -> Case:
    """Return the case with its expert parallel ranks as attention data parallel ones too."""
    cut = dict(case.part("parallel"))
    ep = number(cut.get("ep"))
    cut.pop("disagg", None)
    if ep and not number(cut.get("dp_attn")):
        cut["dp_attn"] = cut["ep"]
    prefill = number(case.part("workload").get("tokens_per_gpu"))
    cut["exchange"] = "deepep_normal" if prefill else "deepep_low"
    hardware = dict(case.part("hardware"))
    if ep:
        hardware["gpus"] = cut["ep"]
    engine = dict(case.part("engine"))
    if "deepseek" in str(engine.get("name")).casefold():
        engine["name"] = "sglang"
    return replace(
        case, words={**case.words, "parallel": cut, "hardware": hardware, "engine": engine}
    )


def _of_row(said: Said, deployments: Deployments, base: Record) -> list[Record]:
    served = deployments.of(said)
    rate = _decode(said, served) or _prefill(said, served)
    if rate is None:
        raise SkippedError("the batch of a step is not stated")
    said.assume(_ONE_BATCH)
    base = replace(base, cls=class_of(served.on.architecture), assumed=tuple(said.assumed))
    predicted = {
        "tokens_s_per_gpu": rate, "tokens_s_per_node": rate * _PER_NODE,
        "without_two_batch_overlap": rate * _PER_NODE,
    }  # fmt: skip
    names = [name for name in predicted if number(said.row.get(name)) is not None]
    plain = [name for name in names if name == "without_two_batch_overlap"] or names[:1]
    found = []
    for name in plain:
        measured = number(said.row.get(name))
        assert measured is not None
        found.append(ran(base, name, predicted[name], measured, row=base.row))
    return found


def _prefill(said: Said, served: Served) -> float | None:
    """Return the prompt tokens per second and device of a full step."""
    tokens = said.count("tokens_per_gpu", part="workload")
    length = said.count("prompt_len", "isl", part="workload")
    if not tokens or not length:
        return None
    count = max(1, tokens // length)
    times = served.times
    took = times.chunks_ps([(length, 0)] * count) + times.common_ps(count * length, count)
    return count * length / (took / PS_PER_S) / served.on.cut.tp


def _decode(said: Said, served: Served) -> float | None:
    """Return the tokens per second and device of a step of decoding."""
    batch = said.count("batch_per_gpu", part="workload")
    held = said.count("kv_len", "isl", part="workload")
    if not batch or not held:
        return None
    took = step_ps(served.times.lines(batch), batch * held)
    return batch / (took / PS_PER_S) / served.on.cut.tp
