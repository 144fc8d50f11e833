"""The report in the terminal: verdict, comparison, where the time goes, what it rests on."""

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from moesim.study.campaign import Campaign
from moesim.study.findings import Findings
from moesim.study.outcome import Outcome
from moesim.study.report import assumptions, campaign_words, words
from moesim.study.report.footing import footing
from moesim.units import readable

_BAR = 28
_STYLES = {"compute": "green", "exposed": "red", "waiting": "magenta", "idle": "yellow"}


def print_result(result: Findings, console: Console) -> None:
    """Print `result` to `console`."""
    style = "green" if result.fits else "red"
    sentences = "\n".join(words.verdict(result))
    console.print(Panel(Text(sentences), title=result.scenario.name, border_style=style))
    console.print(_comparison(result))
    console.print(_breakdown(result.outcome))
    console.print(_memory(result.outcome))
    if result.campaign is not None:
        console.print(_campaign(result.campaign))
    console.print(_footing(result))


def _comparison(result: Findings) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column(result.outcome.run.architecture.name, justify="right")
    for one in result.baselines:
        title = f"{one.outcome.run.architecture.name}\n({one.relation})"
        table.add_column(title, justify="right")
    for row in words.comparison_rows(result):
        table.add_row(*row)
    return table


def _titled(title: str) -> Table:
    return Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        min_width=len(title),
    )


def _breakdown(outcome: Outcome) -> Table:
    table = _titled("Where a step goes (mean over stages)")
    for name, side in (("part", "left"), ("kind", "left"), ("time", "right"), ("share", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    table.add_column("")
    total = sum(share.seconds for share in outcome.breakdown)
    for share in sorted(outcome.breakdown, key=lambda share: -share.seconds):
        fraction = share.seconds / total
        bar = Text("█" * round(_BAR * fraction), style=_STYLES[share.kind])
        time = readable(share.seconds, "s")
        table.add_row(share.name, share.kind, time, words.percent(fraction), bar)
    return table


def _memory(outcome: Outcome) -> Table:
    table = _titled("Memory of the fullest device")
    table.add_column("what")
    table.add_column("size", justify="right")
    fullest = max(outcome.memory, key=lambda stage: stage.total)
    for name, size in fullest.parts():
        table.add_row(name, words.binary(size))
    table.add_row("total", words.binary(fullest.total), style="bold")
    table.add_row("device has", words.binary(outcome.capacity_bytes))
    return table


def _campaign(campaign: Campaign) -> Group:
    table = _titled("The whole campaign")
    table.add_column("over the seeds")
    for name in campaign_words.HEADS[1:]:
        table.add_column(name, justify="right")
    for row in campaign_words.rows(campaign):
        table.add_row(*row)
    return Group(table, *(Text(line) for line in campaign_words.sentences(campaign)))


def _footing(result: Findings) -> Group:
    mix = ", ".join(f"{number} {kind}" for kind, number in words.mix(result).items())
    lines = [
        Text(f"Rests on {mix} figures (assumptions.csv names each with its source).", style="dim")
    ]
    base = footing(result.outcome)
    shares = ", ".join(f"{words.percent(share)} {tag}" for tag, share in base.tags.items())
    off = words.percent(base.uncertainty_fraction)
    lines.append(Text(f"Operator time: {shares}; each off by {off} on average.", style="dim"))
    said = assumptions.statements(result.outcome, base.origins)
    lines += [Text(f"- {statement}", style="dim") for statement in said]
    return Group(*lines)
