"""The report of a serving run in the terminal: verdict, figures, latencies, iterations, memory."""

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from moesim.study.report.serving import words
from moesim.study.report.words import binary, percent
from moesim.study.serving.findings import Served, ServingFindings
from moesim.units import readable

_BAR = 28


def print_result(result: ServingFindings, console: Console) -> None:
    """Print `result` to `console`."""
    style = "green" if result.fits and result.meets_slo else "red"
    sentences = "\n".join(words.verdict(result))
    console.print(Panel(Text(sentences), title=result.scenario.name, border_style=style))
    console.print(_comparison(result))
    for run in result.runs:
        console.print(_latencies(run, result.dialect))
    console.print(_iteration(result.model))
    console.print(_memory(result.model))
    console.print(_engine(result.model))
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


def _iteration(run: Served) -> Table:
    batch = max(run.groups)
    parts = run.groups[batch]
    total = sum(parts.values())
    context = f"{run.context_tokens:,} tokens of context each"
    table = _titled(f"Where an iteration goes ({batch} sequences decode, {context})")
    for name, side in (("part", "left"), ("time", "right"), ("share", "right"), ("", "left")):
        table.add_column(name, justify="right" if side == "right" else "left")
    for name, seconds in sorted(parts.items(), key=lambda pair: -pair[1]):
        if not seconds:
            continue
        bar = Text("█" * round(_BAR * seconds / total), style="green")
        table.add_row(name, readable(seconds, "s"), percent(seconds / total), bar)
    return table


def _memory(run: Served) -> Table:
    table = _titled("Memory of the fullest device")
    table.add_column("what")
    table.add_column("size", justify="right")
    for name, size in run.memory.parts_bytes.items():
        table.add_row(name, binary(size))
    table.add_row("total", binary(sum(run.memory.parts_bytes.values())), style="bold")
    table.add_row("device has", binary(run.memory.capacity_bytes))
    return table


def _engine(run: Served) -> Table:
    table = _titled("What the engine does")
    table.add_column("")
    table.add_column("value")
    for name, value in words.engine_rows(run):
        table.add_row(name, value)
    return table
