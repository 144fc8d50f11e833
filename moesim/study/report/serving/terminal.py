"""The report of a serving run in the terminal: verdict, figures, latencies, iterations, memory."""

from collections.abc import Sequence
from typing import Literal

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from moesim.study.report.serving import advice_words, pool_words, words
from moesim.study.report.words import Row, binary
from moesim.study.serving.findings import Served, ServingFindings
from moesim.study.serving.pool_findings import PoolServed


def print_result(result: ServingFindings, console: Console) -> None:
    """Print `result` to `console`."""
    style = "green" if result.fits and result.meets_slo else "red"
    sentences = "\n".join(words.verdict(result))
    console.print(Panel(Text(sentences), title=result.scenario.name, border_style=style))
    console.print(_comparison(result))
    if result.model.changes:
        rows = advice_words.rows(result.model)
        console.print(_plain("What would make it fit", advice_words.HEADS, rows))
    for run in result.runs:
        if run.outcome.metrics.finished:
            console.print(_latencies(run, result.dialect))
    heads = pool_words.pool_heads(result.model)
    console.print(_plain("What replicas do", ("", *heads), pool_words.pool_rows(result.model)))
    for pool in result.model.pools:
        console.print(_iteration(pool, result.model))
    console.print(_memory(result.model))
    engines = pool_words.engine_rows(result.model)
    console.print(_plain("What the engine does", ("", *heads), engines, "left"))
    console.print(Group(*(Text(f"- {s}", style="dim") for s in words.assumptions(result))))


def _titled(title: str) -> Table:
    return Table(
        title=f"\n{title}", title_justify="left", title_style="bold", box=None, pad_edge=False,
        min_width=len(title),
    )  # fmt: skip


def _comparison(result: ServingFindings) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column(result.model.name, justify="right")
    for one in result.baselines:
        table.add_column(f"{one.name}\n({one.relation})", justify="right")
    for row in words.comparison_rows(result):
        table.add_row(*row)
    return table


def _latencies(run: Served, dialect: str) -> Table:
    table = _titled(f"Latencies of {run.name}, as {dialect} defines them")
    table.add_column("")
    for name in ("mean", "p50", "p90", "p95", "p99"):
        table.add_column(name, justify="right")
    table.add_column("definition", style="dim")
    for one, cells in words.latency_rows(run, dialect):
        table.add_row(one.name, *cells, one.definition)
    return table


def _iteration(pool: PoolServed, run: Served) -> Table:
    context = f" ({run.context_tokens:,} tokens of context each)" if pool.decode else ""
    where = "" if pool.run.name == "all" else f" of {pool.run.name} replicas"
    table = _titled(f"Where an iteration{where} goes{context}")
    table.add_column("")
    for head in pool_words.iteration_heads(pool):
        table.add_column(head, justify="right")
        table.add_column("", justify="right")
    for row in pool_words.iteration_rows(pool):
        table.add_row(*row)
    return table


def _plain(
    title: str, heads: Sequence[str], rows: Sequence[Row], side: Literal["left", "right"] = "right"
) -> Table:
    """Return a table of texts: the first column to the left, the others to one side."""
    table = _titled(title)
    for number, head in enumerate(heads):
        table.add_column(head, justify=side if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _memory(run: Served) -> Table:
    table = _titled("Memory of the fullest device")
    table.add_column("what")
    memories = [pool.memory for pool in run.pools]
    for pool in run.pools:
        table.add_column("size" if pool.run.name == "all" else pool.run.name, justify="right")
    for name in dict.fromkeys(part for one in memories for part in one.parts_bytes):
        table.add_row(name, *(binary(one.parts_bytes.get(name, 0.0)) for one in memories))
    sums = (binary(sum(one.parts_bytes.values())) for one in memories)
    table.add_row("total", *sums, style="bold")
    table.add_row("device has", *(binary(one.capacity_bytes) for one in memories))
    return table
