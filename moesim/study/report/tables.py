"""The tables of a result, each a list of rows: what the CSV files and data frames hold."""

from dataclasses import asdict, fields
from typing import Any

from moesim.cost.pricing import machine, price
from moesim.cost.stage import handed_on, part_name
from moesim.cost.work import blocks
from moesim.model.backward import backward
from moesim.model.operators import Collective, Exchange, Operator, flop, read_bytes, written_bytes
from moesim.study.findings import Findings
from moesim.study.outcome import Outcome
from moesim.study.report import assumptions, campaign_figures
from moesim.study.report.memory_levels import memory_levels
from moesim.study.split import stage_chunks

Rows = list[dict[str, Any]]


def tables(result: Findings) -> dict[str, Rows]:
    """Return every table by name; rows of model and baseline stand in the same table."""
    makers = {
        "steps": _steps,
        "breakdown": _breakdown,
        "stages": _stages,
        "memory": _memory,
        "memory_timeline": memory_levels,
        "operators": operators,
        "routing": _routing,
        "assumptions": assumptions.figures,
    }
    found = {
        name: [{"run": who, **row} for who, outcome in result.runs for row in make(outcome)]
        for name, make in makers.items()
    }
    if result.campaign is not None:
        found["campaign"] = campaign_figures.rows(result.campaign)
    return found


def _steps(outcome: Outcome) -> Rows:
    tokens = outcome.metrics.tokens_per_step
    return [
        {
            "step": step.number,
            "step_s": step.seconds,
            "tokens_per_s": tokens / step.seconds,
            "routed_tokens": step.routed,
            "dropped_tokens": step.dropped,
            "dropped_fraction": step.dropped / step.routed if step.routed else 0.0,
            "rank_imbalance": step.imbalance,
        }
        for step in outcome.steps
    ]


def _breakdown(outcome: Outcome) -> Rows:
    total = sum(share.seconds for share in outcome.breakdown)
    return [
        {"part": s.name, "kind": s.kind, "seconds": s.seconds, "share_fraction": s.seconds / total}
        for s in outcome.breakdown
    ]


def _stages(outcome: Outcome) -> Rows:
    step_s = outcome.first.seconds
    return [
        {
            "stage": number,
            "forward_s": sum(one.seconds for one in cost.forward),
            "backward_s": sum(one.seconds for one in cost.backward),
            "send_s": cost.send_s,
            "reduce_s": cost.reduce_s,
            "embedding_s": cost.embedding_s,
            "gather_s": cost.gather_s,
            "update_s": cost.update_s,
            "busy_s": log.busy_s,
            "reduce_exposed_s": log.reduce_exposed_s,
            "gather_exposed_s": log.gather_exposed_s,
            "idle_s": step_s
            - log.busy_s
            - log.reduce_exposed_s
            - log.gather_exposed_s
            - log.update_s
            - outcome.first.load_exposed_s,
            "load_exposed_s": outcome.first.load_exposed_s,
        }
        for number, (cost, log) in enumerate(zip(outcome.stages, outcome.first.stages, strict=True))
    ]


def _memory(outcome: Outcome) -> Rows:
    return [
        {
            "stage": number,
            **{f"{field.name}_bytes": getattr(stage, field.name) for field in fields(stage)},
            "total_bytes": stage.total,
            "capacity_bytes": outcome.capacity_bytes,
        }
        for number, stage in enumerate(outcome.memory)
    ]


def _routing(outcome: Outcome) -> Rows:
    rows = []
    for number, load in outcome.loads.items():
        row = asdict(load)
        row["fullest_rows"] = sum(load.fullest_rows)
        rows.append({"layer": number, **row})
    return rows


def operators(outcome: Outcome) -> Rows:
    """Return every kind of operator that a micro-batch meets, forward and backward."""
    run = outcome.run
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    seen: dict[Operator, dict[str, Any]] = {}
    for stage in stage_chunks(run):
        for chunk in stage:
            for block in blocks(run.job, chunk, outcome.loads):
                for operator in block.operators:
                    for one in (operator, *backward(operator)):
                        if one not in seen:
                            seen[one] = _operator_row(one, price(one, on, block.skew))
                        seen[one]["count"] += 1
    between = run.layout.pp * run.layout.vpp - 1
    sent = [_operator_row(one, price(one, on)) for one in handed_on(run.job, run.layout.pp)]
    return [*seen.values(), *({**row, "count": 2 * between} for row in sent)]


def _operator_row(operator: Operator, timed: Any) -> dict[str, Any]:
    counted = not isinstance(operator, Collective | Exchange)
    return {
        "operator": operator.name,
        "part": part_name(operator),
        "shape": _shape(operator),
        "stream": timed.stream,
        "tag": timed.tag,
        "uncertainty": timed.uncertainty,
        "origin": timed.origin,
        "count": 0,
        "seconds": timed.seconds,
        "flop": flop(operator),
        "read_bytes": read_bytes(operator) if counted else None,  # type: ignore[arg-type]
        "written_bytes": written_bytes(operator) if counted else None,  # type: ignore[arg-type]
    }


def _shape(operator: Operator) -> str:
    skip = ("name", "module", "input_from", "count")
    parts = []
    for field in fields(operator):
        value = getattr(operator, field.name)
        if field.name in skip or value is None:
            continue
        if isinstance(value, tuple):
            value = f"{len(value)} experts, {sum(value)} rows"
        parts.append(
            f"{field.name}={value:g}" if isinstance(value, float) else f"{field.name}={value}"
        )
    return " ".join(parts)
