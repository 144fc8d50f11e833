"""Rows of serving curves, points and offline throughput: each row is one run."""

from collections.abc import Mapping
from dataclasses import replace

from moesim.errors import MoesimError
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.figures import number
from moesim.study.validate.inference.apart import is_apart, run_apart
from moesim.study.validate.inference.asked import asked_of
from moesim.study.validate.inference.deployment import Deployments
from moesim.study.validate.inference.models import class_of
from moesim.study.validate.inference.saturated import saturated
from moesim.study.validate.inference.simulated import Run, predictions, simulated
from moesim.study.validate.inference.words import Row, Said, rows, software_of
from moesim.study.validate.record import Record, ran
from moesim.study.validate.skipped import SkippedError

ABOVE = " above saturation"
"""Ending of the metric where queueing dominates."""

_SAME = {
    "output_tokens_s": ("output_tokens_s_per_gpu", "requests_s"),
    "offline_tokens_s": ("offline_samples_s",),
    "e2e_mean_ms": ("latency_mean_ms",),
}
"""One figure in several units: the first is compared."""


def serving_rows(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of each row of a case; a row that cannot be run says why."""
    deployments = Deployments(file)
    table = rows(case)
    found: list[Record] = []
    above = saturated(case, table)
    for number_of, (row, over) in enumerate(zip(table, above, strict=True)):
        said = Said(case, row)
        base = replace(record, row=number_of, software=software_of(case))
        try:
            run = run_row(said, deployments)
        except (SkippedError, MoesimError) as error:
            found.append(replace(base, reason=str(error), assumed=tuple(said.assumed)))
            continue
        base = replace(base, cls=class_of(run.served.on.architecture), assumed=tuple(said.assumed))
        found += _compared(row, run, base, over=over)
    if found and all(one.status != "ran" for one in found):
        raise SkippedError(found[0].reason)
    return found


def run_row(said: Said, deployments: Deployments) -> Run:
    """Return the run of a row; SkippedError where it cannot be mapped."""
    if said.row.get("rate_rps") == "all":
        raise SkippedError("pools the stages of the other rows")
    if is_apart(said):
        return run_apart(said, deployments)
    checkpoint = said.row.get("checkpoint")
    served = deployments.of(said, str(checkpoint) if checkpoint else "")
    return simulated(served, asked_of(said, served.replicas))


def _compared(row: Row, run: Run, base: Record, *, over: bool) -> list[Record]:
    predicted = {**predictions(run), **_alone(row, run)}
    twice = {other for name, others in _SAME.items() if name in row for other in others}
    return [
        ran(base, _metric(name, over=over), predicted[name], measured, row=base.row)
        for name, value in row.items()
        if name in predicted and name not in twice and (measured := number(value))
    ]


def _alone(row: Row, run: Run) -> Mapping[str, float]:
    """Return what one request at a time shows: prompt and output tokens over its time."""
    prompt = number(row.get("isl"))
    if prompt is None:
        return {}
    each = float(run.output.mean())
    return {"speed_tokens_s": (prompt + each) / float(run.e2e.mean())}


def _metric(name: str, *, over: bool) -> str:
    first_token = name.startswith(("ttft", "e2e", "latency", "mean_latency"))
    return name + ABOVE if over and first_token else name
