"""The tables about loads as rows of words, for the page and the terminal of a routing study."""

from collections.abc import Callable
from html import escape
from typing import Any

from moesim.study.report.words import percent
from moesim.units import three_digits

TABLES = {
    "touched": "Experts that a batch touches",
    "granularity": "Same FLOP, other granularity",
    "trace": "What was measured, and what was drawn from it",
}

EXPLAINED = {
    "touched": "Distinct experts of a layer that so many tokens choose, means over the MoE layers: "
    "a decode step reads the weights of these alone. Uniform choices touch the most.",
    "granularity": "The experts of the last MoE layer cut into smaller ones, with as many more "
    "choices: FLOP, weights and rows per expert stay, copies of a token do not. Where one choice "
    "is made a shared expert, FLOP and weights stay and it needs no copy.",
    "trace": "Means over the MoE layers, experts in order on the ranks. Copies reach as many ranks "
    "as uniform choices would, however skewed the loads are.",
}

_COLUMNS: dict[str, dict[str, tuple[str, Callable[[Any], str]]]] = {
    "touched": {
        "tokens": ("tokens", "{:,}".format),
        "uniform_experts": ("uniform", three_digits),
        "independent_experts": ("independent", three_digits),
        "bursty_experts": ("bursty", three_digits),
        "measured_experts": ("measured", three_digits),
        "expert_weights_read_fraction": ("weights read", percent),
    },
    "granularity": {
        "pieces": ("pieces", str),
        "made_shared": ("made shared", str),
        "experts": ("experts", "{:,}".format),
        "top_k": ("top k", str),
        "expert_width": ("width", "{:,}".format),
        "rows_per_expert": ("rows per expert", three_digits),
        "copies_per_choice": ("copies per choice", three_digits),
        "copies_per_rank": ("copies per rank", three_digits),
        "padding_fraction": ("block padding", percent),
    },
    "trace": {
        "domain": ("domain", str),
        "cv": ("CV", three_digits),
        "expert_imbalance": ("fullest expert", three_digits),
        "expert_imbalance_drawn": ("drawn", three_digits),
        "rank_imbalance": ("fullest rank", three_digits),
        "rank_imbalance_drawn": ("drawn", three_digits),
        "distinct_ranks": ("ranks reached", three_digits),
        "distinct_ranks_assumed": ("assumed", three_digits),
        "shared_with_neighbour": ("shared with neighbour", three_digits),
        "burst": ("burst", three_digits),
    },
}


def load_rows(name: str, rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return a table in words, the titles first; columns of which nothing is known are left out."""
    if name == "trace":
        rows = _by_domain(rows)
    columns = {
        key: column
        for key, column in _COLUMNS[name].items()
        if any(row[key] is not None for row in rows)
    }
    titles = tuple(title for title, _ in columns.values())
    return [
        titles,
        *(tuple(_word(row[key], say) for key, (_, say) in columns.items()) for row in rows),
    ]


def _word(value: Any, say: Callable[[Any], str]) -> str:
    return "-" if value is None else say(value)


def _by_domain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over layers."""
    found = []
    for domain in dict.fromkeys(row["domain"] for row in rows):
        mine = [row for row in rows if row["domain"] == domain]
        means = {key: _mean([row[key] for row in mine]) for key in mine[0] if key != "domain"}
        found.append({"domain": domain, **means})
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def load_sections(summed: dict[str, Any]) -> list[str]:
    """Return the sections of the page, one for each table of the summary."""
    return [_section(name, load_rows(name, summed[name])) for name in TABLES if summed.get(name)]


def _section(name: str, rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in row)}</tr>" for row in rows[1:]
    )
    return (
        f"<section><h2>{TABLES[name]}</h2><p class='note'>{EXPLAINED[name]}</p>"
        f"<table class='figures'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        "</section>"
    )
