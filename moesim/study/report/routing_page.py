"""A routing study as one page with everything inside it, and as files."""

from html import escape
from pathlib import Path
from typing import Any

from moesim.study.report import files
from moesim.study.report import routing_traffic_charts as traffic
from moesim.study.report.page import document
from moesim.study.report.routing_charts import charts
from moesim.study.report.routing_load_page import load_sections
from moesim.study.report.routing_summary import summary
from moesim.study.report.routing_tables import tables
from moesim.study.report.routing_words import figures, verdict
from moesim.study.routing_study import RoutingStudy

TITLES = {
    "experts": "Load of experts",
    "ranks": "Load of ranks",
    "in_order": "Load of ranks with the experts in order",
    "imbalance": "Imbalance, layer by layer",
    "capacity": "Capacity",
    **traffic.TITLES,
    "drops": "Who is dropped",
}

EXPLAINED = {
    "experts": "How many assignments each expert got, over the mean of its layer: pale where "
    "nobody goes, blue at the mean, red at four times the mean and beyond.",
    "ranks": "Rows that each rank computes, over the mean, where the scenario's placement has put "
    "the experts. The fullest rank holds the others up at every exchange.",
    "in_order": "The same rows on contiguous experts, one slot each: what the placement and its "
    "redundant experts are worth.",
    "imbalance": "Fullest over mean: of experts as the router chose them, of ranks with the "
    "experts in order, and of ranks as placed, redundant experts included.",
    "capacity": "What the first MoE layer drops at several capacity factors under the scenario's "
    "formula, and the share of slots that stays empty.",
    **traffic.EXPLAINED,
    "drops": "One routing group of the first MoE layer, its tokens placed one by one under the "
    "scenario's drop policy. First come, first served drops the end of a group; choice by choice "
    "the second choices; by weight or at random all positions alike.",
}


def html(study: RoutingStudy, summed: dict[str, Any] | None = None) -> str:
    """Return the page; `summed` is the summary, where it is at hand already."""
    summed = summed or summary(study)
    pictures = charts(study)
    sections = [
        _head(study, summed),
        _figures(summed),
        *(_picture(name) for name in pictures),
        *load_sections(summed),
    ]
    return document(f"{study.scenario.name} (routing)", sections, pictures)


def _head(study: RoutingStudy, summed: dict[str, Any]) -> str:
    scenario = study.scenario
    lead = f'<p class="lead">{escape(scenario.description)}</p>' if scenario.description else ""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict(summed))
    return (
        f"<header><h1>{escape(scenario.name)}: routing</h1>{lead}</header>\n"
        f'<section class="verdict good">{said}</section>'
    )


def _figures(summed: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in figures(summed)
    )
    return (
        "<section><h2>In figures</h2><table class='figures'><tbody>"
        f"{rows}</tbody></table><p class='note'>Means over the MoE layers of one micro-batch of "
        f"one expert-parallel group. {escape(' '.join(summed['load']))}</p></section>"
    )


def _picture(name: str) -> str:
    return (
        f'<section><h2>{TITLES[name]}</h2><p class="note">{EXPLAINED[name]}</p>'
        f'<div id="{name}" class="picture"></div></section>'
    )


def contents(study: RoutingStudy) -> dict[str, str]:
    """Return the text of every file of a study, by file name."""
    summed = summary(study)
    texts = {files.MARKER: files.to_json(summed) + "\n"}
    for name, rows in tables(study).items():
        texts[f"{name}.csv"] = files.to_csv(rows)
    texts["report.html"] = html(study, summed)
    return texts


def save(study: RoutingStudy, directory: str | Path) -> Path:
    """Write summary.json, tables and report.html to `directory`; return it."""
    return files.write(lambda: contents(study), Path(directory))
