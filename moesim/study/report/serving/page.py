"""report.html of a serving run: one page with everything inside it; it opens offline."""

import hashlib
import json
from collections.abc import Iterable
from html import escape

from moesim.study.report.page import document
from moesim.study.report.serving import advice_words, charts, pool_words, words
from moesim.study.report.words import Row
from moesim.study.serving.findings import ServingFindings
from moesim.study.serving.shown import engine_defaults, kernels
from moesim.version import __version__

TITLES = {
    "latencies": "How long requests take",
    "over_time": "Over time",
    "iterations": "Where a decode iteration goes",
    "memory": "Memory per device",
    "curve": "Throughput against interactivity",
}
EXPLAINED = {
    "latencies": "Share of the requests (of ITL: of the gaps) that take so long at most. TTFT: "
    "arrival to first token; TPOT: (last - first token) / (output tokens - 1); ITL: each gap; E2E: "
    "arrival to last token.",
    "over_time": "Requests that run and that wait, and the share of the cache's blocks in use; "
    "with many engines their sum in each pool, and of the cache the mean. timeline.csv has the "
    "figures of each engine. Hit tokens: found in the prefix cache; ready: replicas that take "
    "requests.",
    "iterations": "One iteration in which so many sequences decode on a rank, each with the run's "
    "mean context in the cache, by group of operators. Bold: what the run had on average.",
    "memory": "Bytes on the fullest device; the cache is as large as the engine makes it. The "
    "dashed line is what the device has.",
    "curve": "A closed loop of mean requests, from one in flight per replica (right) to 512 or as "
    "many as the engine takes (left), on the same devices.",
}


def html(result: ServingFindings) -> str:
    """Return the page."""
    pictures = charts.charts(result)
    sections = [
        _head(result),
        _comparison(result),
        *_advice(result),
        *(
            _latencies(result, number)
            for number, run in enumerate(result.runs)
            if run.outcome.metrics.finished
        ),
        *(_picture(name, result) for name in ("latencies", "over_time") if name in pictures),
        _pools(result),
        *(_picture(name, result) for name in pictures if name not in ("latencies", "over_time")),
        _engine(result),
        _assumptions(result),
        _reproduce(result),
    ]
    return document(result.scenario.name, sections, pictures)


def _head(result: ServingFindings) -> str:
    scenario = result.scenario
    kind = "good" if result.fits and result.meets_slo else "bad"
    sentences = "".join(f"<p>{escape(one)}</p>" for one in words.verdict(result))
    about = f'<p class="lead">{escape(scenario.description)}</p>' if scenario.description else ""
    return (
        f"<header><h1>{escape(scenario.name)}</h1>{about}</header>\n"
        f'<section class="verdict {kind}">{sentences}</section>'
    )


def _table(heads: Iterable[str], rows: Iterable[Row], kind: str = "figures") -> str:
    """Return a table; the heads are HTML already, cells are texts."""
    head = "".join(f"<th>{one}</th>" for one in heads)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class='wide'><table class='{kind}'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _comparison(result: ServingFindings) -> str:
    heads = ["", escape(result.model.name)]
    heads += [
        f"{escape(one.name)}<br><small>{escape(one.relation)}</small>" for one in result.baselines
    ]
    title = "Side by side" if result.baselines else "The run in figures"
    table = _table(heads, words.comparison_rows(result))
    return f"<section><h2>{title}</h2>{table}</section>"


def _latencies(result: ServingFindings, number: int) -> str:
    run = result.runs[number]
    rows = [
        (f"{one.name}: {one.definition}", *cells)
        for one, cells in words.latency_rows(run, result.dialect)
    ]
    title = f"Latencies of {escape(run.name)}, as {escape(result.dialect)} defines them"
    table = _table(("", "mean", "p50", "p90", "p95", "p99"), rows, "figures latencies")
    return f"<section><h2>{title}</h2>{table}</section>"


def _picture(name: str, result: ServingFindings) -> str:
    note = EXPLAINED[name]
    if name == "iterations":
        tokens = ", ".join(f"{run.context_tokens:,}" for run in result.runs[:1])
        note = note.replace("mean context", f"mean context of {tokens} tokens")
    return (
        f'<section><h2>{TITLES[name]}</h2><p class="note">{note}</p>'
        f'<div id="{name}" class="picture"></div></section>'
    )


def _advice(result: ServingFindings) -> list[str]:
    if not result.model.changes:
        return []
    table = _table(advice_words.HEADS, advice_words.rows(result.model), "figures latencies")
    return [
        "<section><h2>What would make it fit</h2><p class='note'>Each change as <code>--set</code> "
        "takes it, and what it leaves missing on the fullest device. A narrower format changes "
        f"what the model answers; that is not simulated.</p>{table}</section>"
    ]


def _pools(result: ServingFindings) -> str:
    run = result.model
    table = _table(("", *pool_words.pool_heads(run)), pool_words.pool_rows(run))
    parts = []
    for pool in run.pools:
        heads = [text for head in pool_words.iteration_heads(pool) for text in (head, "share")]
        where = "" if pool.run.name == "all" else f" of {pool.run.name} replicas"
        rows = pool_words.iteration_rows(pool)
        parts.append(f"<h3>Where an iteration{where} goes</h3>{_table(('', *heads), rows)}")
    return (
        f"<section><h2>What replicas do</h2>{table}{''.join(parts)}<p class='note'>Sequences that "
        f"decode have {run.context_tokens:,} tokens of context each; a prompt is computed alone, "
        "from its beginning. The projections of latent attention are in attention. Exchange of "
        "tokens: to their experts and back; with dp 1 all ranks have them, and it is the sum of "
        "what experts put out.</p></section>"
    )


def _engine(result: ServingFindings) -> str:
    run = result.model
    table = _table(("", *pool_words.pool_heads(run)), pool_words.engine_rows(run))
    sources = "".join(
        f"<tr><td>{escape(str(row['pool']))}</td><td>{escape(str(row['setting']))}</td>"
        f"<td>{escape(str(row['value']))}</td><td>{escape(str(row['source']))}</td></tr>"
        for row in engine_defaults(run.outcome.run)
    )
    return (
        "<section><h2>What the engine does</h2><p class='note'>Every default resolved, as for this "
        f"device and version.</p>{table}<details><summary>Where each setting comes from</summary>"
        "<div class='wide'><table class='sources'><thead><tr><th>pool</th><th>setting</th>"
        f"<th>value</th><th>source</th></tr></thead><tbody>{sources}</tbody></table></div>"
        "</details></section>"
    )


def _assumptions(result: ServingFindings) -> str:
    said = "".join(f"<li>{escape(line)}</li>" for line in words.assumptions(result))
    found = kernels(result.model.outcome.run)
    tags = "".join(
        f"<tr><td>{escape(row['kernel'])}</td><td><span class='tag {row['tag']}'>{row['tag']}"
        f"</span></td><td>{escape(row['profile'])}</td></tr>"
        for row in found
    )
    rows = "".join(
        f"<tr><td>{escape(f.subject)}</td><td>{escape(f.name)}</td><td>{escape(f.text)}</td>"
        f"<td><span class='tag {f.kind}'>{f.kind}</span></td>"
        f"<td>{escape(f.source)}{'. ' + escape(f.note) if f.note else ''}</td></tr>"
        for f in words.sourced(result)
    )
    return (
        f"<section><h2>What this rests on</h2><ul>{said}</ul>"
        "<details><summary>Every kernel that was asked for</summary><div class='wide'>"
        "<table class='sources'><thead><tr><th>kernel</th><th>tag</th><th>measured on</th></tr>"
        f"</thead><tbody>{tags}</tbody></table></div></details>"
        "<details><summary>Every figure and its source</summary><div class='wide'>"
        "<table class='sources'><thead><tr><th>of</th><th>figure</th><th>value</th><th>kind</th>"
        f"<th>source</th></tr></thead><tbody>{rows}</tbody></table></div></details></section>"
    )


def _reproduce(result: ServingFindings) -> str:
    resolved = json.dumps(result.scenario.model_dump(mode="json"), indent=2, ensure_ascii=False)
    digest = hashlib.sha256(resolved.encode()).hexdigest()[:16]
    source = result.model.outcome.run.deployment.architecture.source
    return (
        "<section><h2>To reproduce</h2>"
        f"<p class='note'>moesim {__version__}, seed {result.scenario.seed}, scenario {digest}. "
        f"Model figures: {escape(source)}</p>"
        f"<details><summary>The scenario as written, with defaults</summary><pre>{escape(resolved)}"
        "</pre></details></section>"
    )
