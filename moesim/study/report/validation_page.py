"""The page of a validation: head figures, parity plot, errors, groups, and every case."""

from collections.abc import Iterable, Sequence
from html import escape

from moesim.study.report.page import document
from moesim.study.report.validation_charts import parity, spread
from moesim.study.report.validation_words import (
    BIAS,
    by_reason,
    by_source,
    number,
    plain,
    short_metric,
    signed,
)
from moesim.study.validate.record import Record
from moesim.study.validate.scores import Score, grouped, headline, right_signs


def html(records: Sequence[Record]) -> str:
    """Return the page."""
    pictures = {"parity": parity(records), "errors": spread(records)}
    sections = [
        _head(records),
        _picture("parity", "Predicted over measured", "Speeds, each in its own unit on one pair of "
                 "axes: steps in seconds, others in tokens or examples a second, so compare with "
                 "the line only. On it the two agree; the dotted lines are 20 % off."),
        _picture("errors", "Errors by source", "(predicted - measured) / measured."),
        _groups(records),
        _skipped(records),
        _cases([one for one in records if one.status == "ran"]),
    ]  # fmt: skip
    return document("Validation", sections, pictures)


def _head(records: Sequence[Record]) -> str:
    cases = len({one.case for one in records})
    compared = len({one.case for one in records if one.status == "ran"})
    right, ran = right_signs(records)
    signs = f" {right} of {ran} single changes go the measured way." if ran else ""
    return (
        "<header><h1>Validation</h1><p class='lead'>Predictions beside what others measured: "
        f"{compared} of {cases} cases and pairs compared. "
        "Nothing was fitted to a case; the host's time is one figure for all steps alike.</p>"
        f"</header><section><h2>Quality A and B</h2>{_table([('', headline(records))])}"
        f"<p class='note'>{escape(BIAS)}.{signs}</p></section>"
    )


def _picture(name: str, title: str, note: str) -> str:
    return (
        f'<section><h2>{title}</h2><p class="note">{note}</p>'
        f'<div id="{name}" class="picture"></div></section>'
    )


def _groups(records: Sequence[Record]) -> str:
    return f"<section><h2>Groups</h2>{_table(grouped(records))}</section>"


def _table(parts: Iterable[tuple[str, Sequence[Score]]]) -> str:
    rows = ""
    for title, found in parts:
        rows += f"<tr><th colspan='5'><b>{escape(title)}</b></th></tr>" if title else ""
        rows += "".join(_score(one) for one in found)
    head = "<th></th><th>ran</th><th>median</th><th>p90</th><th>bias</th>"
    return f"<table class='figures'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _score(one: Score) -> str:
    figures = (f"{one.ran} of {one.total}", plain(one.median), plain(one.p90), signed(one.bias))
    return f"<tr><th>{escape(' / '.join(one.name))}</th>{_cells(figures)}</tr>"


def _skipped(records: Sequence[Record]) -> str:
    rows = "".join(
        f"<tr><th>{escape(reason)}</th><td>{'<br>'.join(map(escape, ids))}</td></tr>"
        for reason, ids in by_reason(records).items()
    )
    if not rows:
        return ""
    return (
        "<section><h2>Skipped</h2><table class='sources'><thead><tr><th>why</th><th>cases</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _cases(ran: Sequence[Record]) -> str:
    rows = ""
    for source, found in by_source(ran).items():
        rows += f"<tr><th colspan='5'><b>{escape(source)}</b></th></tr>"
        rows += "".join(_case(one) for one in found)
    head = "<th>case</th><th>metric</th><th>predicted</th><th>measured</th><th>error</th>"
    return (
        "<section><h2>Every case that ran</h2><p class='note'>Under a case: what had to be assumed "
        f"of it.</p><table class='figures cases'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _case(one: Record) -> str:
    assumed = f"<br><small>{escape('; '.join(one.assumed))}</small>" if one.assumed else ""
    figures = (number(one.predicted), number(one.measured), signed(one.error))
    name = escape(one.case).replace(" -&gt; ", "<br>&rarr; ")
    metric = short_metric(one.metric)
    return f"<tr><th>{name}{assumed}</th>{_cells((metric, *figures))}</tr>"


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td style='white-space: nowrap'>{escape(text)}</td>" for text in texts)
