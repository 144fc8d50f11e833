"""report.html: one page with everything inside it, pictures included; it opens offline."""

import hashlib
import json
from html import escape
from importlib.resources import files
from typing import Any

from moesim.study.findings import Findings
from moesim.study.report import assumptions, campaign_page, charts, style, words
from moesim.study.report.routing_words import expected_words
from moesim.study.report.summary import summary
from moesim.version import __version__

TITLES = {
    "breakdown": "Where a step goes",
    "memory": "Memory per device",
    "memory_timeline": "Memory over the first step",
    "timeline": "Timeline of the first step",
    "routing": "What the router does",
}

EXPLAINED = {
    "breakdown": "From left to right: the device computes; it only communicates (red and pink); "
    "it waits for data (brown) or other stages (yellow). Averages over the stages; the parts sum "
    "to the step.",
    "memory": "Peak bytes on one device of each pipeline stage, of the first 32 stages where there "
    "are more. The dashed line is what the device has.",
    "memory_timeline": "Bytes on one device of each stage, of 8 stages where there are more: what "
    "stays, the activations of the micro-batches in flight, and what the layer at work needs. Long "
    "steps are cut in the middle; memory_timeline.csv has every level.",
    "timeline": "Each row is a pipeline stage; F3.0 is the forward pass of micro-batch 3 through "
    "chunk 0; long steps are cut. trace.json has the streams in full, for ui.perfetto.dev.",
    "routing": "Bars: how much fuller the fullest rank is than the mean, which is how long the "
    "others wait. A line, where tokens are dropped: assignments beyond the capacity, which pass "
    "the layer by on the residual path.",
}


def html(result: Findings, figures: dict[str, Any] | None = None) -> str:
    """Return the page; `figures` is the summary, where it is at hand already."""
    figures = figures or summary(result)
    pictures = charts.charts(result)
    sections = [
        _head(result),
        _comparison(result),
        *(_picture(name) for name in pictures),
        _routing_words(figures),
        campaign_page.section(result.campaign),
        _assumptions(result, figures),
        _reproduce(result),
    ]
    drawn = {**pictures, **campaign_page.pictures(result.campaign)}
    return document(result.scenario.name, sections, drawn)


def document(name: str, sections: list[str], pictures: dict[str, charts.Chart]) -> str:
    """Return a page with these sections, whose pictures are drawn where their names are ids."""
    title = escape(name)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} · moesim</title>\n<style>{style.CSS}</style>\n"
        f"<script>{_plotly_script()}</script>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + f"\n</main>\n<script>{_draw(pictures)}</script>\n</body>\n</html>\n"
    )


def _plotly_script() -> str:
    """Return plotly's script, read as a file: importing plotly itself takes half a second."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _draw(pictures: dict[str, charts.Chart]) -> str:
    """Return the script that draws the pictures; "</" inside data must not end the script."""
    data = json.dumps(pictures, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return (
        f"const pictures={data};"
        "for(const [name,p] of Object.entries(pictures)){"
        "Plotly.newPlot(name,p.data,p.layout,{displayModeBar:false,responsive:true});}"
    )


def _head(result: Findings) -> str:
    scenario = result.scenario
    kind = "good" if result.fits else "bad"
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in words.verdict(result))
    described = (
        f'<p class="lead">{escape(scenario.description)}</p>' if scenario.description else ""
    )
    return (
        f"<header><h1>{escape(scenario.name)}</h1>{described}</header>\n"
        f'<section class="verdict {kind}">{sentences}</section>'
    )


def _comparison(result: Findings) -> str:
    heads = [escape(result.outcome.run.architecture.name)]
    for one in result.baselines:
        name = escape(one.outcome.run.architecture.name)
        heads.append(f"{name}<br><small>{escape(one.relation)}</small>")
    rows = "".join(
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in words.comparison_rows(result)
    )
    title = "Side by side" if result.baselines else "The run in figures"
    head = "".join(f"<th>{one}</th>" for one in heads)
    return (
        f"<section><h2>{title}</h2><table class='figures'><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table><p class='note'>MFU: useful FLOP (three times the forward "
        "pass, active experts only, causal attention) over the peak of the datasheet; HFU counts "
        "recomputation too.</p></section>"
    )


def _picture(name: str) -> str:
    return (
        f'<section><h2>{TITLES[name]}</h2><p class="note">{EXPLAINED[name]}</p>'
        f'<div id="{name}" class="picture"></div></section>'
    )


def _routing_words(figures: dict[str, Any]) -> str:
    routing = figures["model"]["routing"]
    if routing is None:
        return ""
    closed = f" ({expected_words(routing)})" if routing["expected_drop_kind"] else ""
    return (
        f"<section><p>In the first step {routing['routed_tokens']:,} assignments were routed over "
        f"{routing['moe_layers']} layers (one micro-batch of one expert-parallel group), of which "
        f"{routing['dropped_tokens']:,} found no slot: "
        f"{words.percent(routing['dropped_fraction'])}{closed}. The fullest rank had, averaged "
        f"over layers, {routing['mean_rank_imbalance']:.2f} times the mean load."
        f"{_micro_batch_words(routing.get('micro_batches'))}</p></section>"
    )


def _micro_batch_words(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f" Over {found['number']:,} micro-batches of the step that was "
        f"{found['least_rank_imbalance']:.2f} to {found['most_rank_imbalance']:.2f}, "
        f"{found['mean_rank_imbalance']:.2f} in the mean, and "
        f"{words.percent(found['dropped_fraction'])} found no slot."
    )


def _assumptions(result: Findings, summed: dict[str, Any]) -> str:
    base = summed["model"]["operator_times"]
    statements = assumptions.statements(result.outcome, base["origins"])
    said = "".join(f"<li>{escape(line)}</li>" for line in statements)
    figures = sorted(
        assumptions.figures(result.outcome),
        key=lambda figure: (assumptions.KINDS.index(figure["kind"]), figure["subject"]),
        reverse=True,
    )
    rows = "".join(
        f"<tr><td>{escape(f['subject'])}</td><td>{escape(f['name'])}</td>"
        f"<td>{escape(f['value'])}</td><td><span class='tag {f['kind']}'>{f['kind']}</span></td>"
        f"<td>{escape(f['source'])}{'. ' + escape(f['note']) if f['note'] else ''}</td></tr>"
        for f in figures
    )
    return (
        f"<section><h2>What this rests on</h2><p class='note'>Operator time: {_tags(base)}. "
        "Fitted and transferred times come from published measurements, assumed ones from "
        "datasheet peaks at an assumed efficiency.</p>"
        f"<ul>{said}</ul><details><summary>Every figure and its source</summary>"
        "<table class='sources'><thead><tr><th>of</th><th>figure</th><th>value</th><th>kind</th>"
        f"<th>source</th></tr></thead><tbody>{rows}</tbody></table></details></section>"
    )


def _tags(base: dict[str, Any]) -> str:
    shares = ", ".join(
        f"{words.percent(share)} <span class='tag {tag}'>{tag}</span>"
        for tag, share in base["tags"].items()
    )
    return f"{shares}; each is off by {words.percent(base['uncertainty_fraction'])} on average"


def _reproduce(result: Findings) -> str:
    resolved = json.dumps(result.scenario.model_dump(mode="json"), indent=2, ensure_ascii=False)
    digest = hashlib.sha256(resolved.encode()).hexdigest()[:16]
    return (
        "<section><h2>To reproduce</h2>"
        f"<p class='note'>moesim {__version__}, seed {result.scenario.seed}, scenario {digest}. "
        f"Model figures: {escape(result.outcome.run.architecture.source)}</p>"
        f"<details><summary>The scenario, every default resolved</summary><pre>{escape(resolved)}"
        "</pre></details></section>"
    )
