"""The sentences and rows that terminal and page of a serving result share."""

from collections.abc import Sequence

import numpy as np

from moesim.hardware.figures import SourcedFigure
from moesim.model.parameters import active_params, total_params
from moesim.spec.serving.slo import SloSpec
from moesim.study.report.serving import advice_words
from moesim.study.report.serving.pool_words import cluster_cells, layout_words, weight_bytes
from moesim.study.report.serving.texts import rate, seconds
from moesim.study.report.words import Row, binary, count, percent, usd
from moesim.study.serving.assumptions import assumptions as of_run
from moesim.study.serving.curve import MOST
from moesim.study.serving.dialects import Measure, measures
from moesim.study.serving.extras import extras
from moesim.study.serving.findings import Served, ServingFindings
from moesim.study.serving.metrics import Metrics, Quantiles, counted
from moesim.study.serving.shown import kernels
from moesim.units import readable, three_digits


def verdict(result: ServingFindings) -> list[str]:
    """Return what a reader should take away, in a few sentences."""
    return [
        *_own(result.model),
        *_objective(result.model, result.scenario.serving.slo),
        *(_beside(result.model, one) for one in result.baselines),
    ]


def _own(model: Served) -> list[str]:
    run, found = model.outcome.run, model.outcome.metrics
    where = f"{run.cluster.topology.devices} x {run.cluster.device.name} ({run.cluster.name})"
    if not model.fits:
        held, memory = weight_bytes(model.memory.parts_bytes), model.memory
        pool = "" if memory.pool == "all" else f" of the {memory.pool} replicas"
        return [
            f"{model.name} does not fit on {where}: weights take {binary(held)} of the "
            f"{binary(memory.capacity_bytes)} of a device{pool}, and what the engine may use "
            f"beside them has room for {memory.cache_tokens:,} tokens of cache, not for the "
            f"{memory.longest_tokens:,} of the longest request; {binary(memory.missing_bytes)} "
            "per device are missing.",
            *_served_all_the_same(found),
            *advice_words.sentences(model),
        ]
    said = [
        f"{model.name} on {where}: {rate(found.output_tokens_per_s)} output tokens/s "
        f"({rate(found.output_tokens_per_s_per_device)} per device), median TTFT "
        f"{seconds(found.ttft_s.p50)}, median TPOT {seconds(found.tpot_s.p50)} "
        f"({rate(found.output_tokens_per_s_per_user)} tokens/s per user)."
    ]
    if found.unfinished:
        said.append(f"{found.unfinished:,} requests never got all of their tokens.")
    return said


def _served_all_the_same(found: Metrics) -> list[str]:
    if not found.finished:
        return []
    asked = found.finished + found.unfinished
    return [
        f"{found.finished:,} of {asked:,} requests were short enough to be served all the same."
    ]


def _objective(model: Served, slo: SloSpec | None) -> list[str]:
    found = model.outcome.metrics
    if slo is None or found.good_fraction is None or not (found.finished or model.fits):
        return []
    limits = ", ".join(
        f"{name.upper()} {seconds(limit)}"
        for name, limit in (("ttft", slo.ttft), ("tpot", slo.tpot), ("e2e", slo.e2e))
        if limit is not None
    )
    met = "meets" if found.meets_slo else "misses"
    goodput = found.goodput_requests_per_s
    per_s = f", {rate(goodput)} good requests/s" if goodput is not None else ""
    each = "; ".join(f"{percent(share)} keep {name}" for name, share in kept_limits(model, slo))
    apart = f" ({each})" if not found.meets_slo and ";" in each else ""
    return [
        f"It {met} the objective ({limits} for {percent(slo.attainment)} of requests): "
        f"{percent(found.good_fraction)} keep it{apart}{per_s}."
    ]


def kept_limits(model: Served, slo: SloSpec) -> list[tuple[str, float]]:
    """Return the share of all requests that count that keep each limit of an objective."""
    of = counted(model.outcome.requests, model.outcome.run.scenario.serving.workload.warm_up)
    everybody = len(of.finish) + of.unfinished
    kept = (
        ("TTFT", slo.ttft, of.first - of.arrival), ("E2E", slo.e2e, of.finish - of.arrival),
        ("TPOT", slo.tpot, (of.finish - of.first) / np.maximum(1, of.output - 1)),
    )  # fmt: skip
    return [
        (name, float((took <= limit).sum()) / everybody)
        for name, limit, took in kept
        if limit is not None
    ]


def _beside(model: Served, other: Served) -> str:
    ours, theirs = model.outcome.metrics, other.outcome.metrics
    name = f"the {other.name}" if other.name.startswith("dense twin") else other.name
    if not other.fits:
        return f"{name[0].upper()}{name[1:]} ({other.relation}) does not fit on these devices."
    tpot = theirs.tpot_s.p50 / ours.tpot_s.p50
    said = (
        f"Beside it {name} ({other.relation}) has {three_digits(tpot)} times its median TPOT "
        f"and {three_digits(theirs.ttft_s.p50 / ours.ttft_s.p50)} times its median TTFT under the "
        "same requests"
    )
    if model.curve and other.curve:
        most = [max(p.output_tokens_per_s_per_device for p in one.curve) for one in (model, other)]
        said += f", and at most {three_digits(most[1] / most[0])} times its tokens/s per device"
    return f"{said}."


def comparison_rows(result: ServingFindings) -> list[Row]:
    """Return the figures of model and baselines side by side; the first cell names the figure."""
    columns = [_column(run) for run in result.runs]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return [row for row in rows if any(cell not in ("", "-") for cell in row[1:])]


def _column(run: Served) -> dict[str, str]:
    m, on = run.outcome.metrics, run.outcome.run.deployment
    usd_of = {
        name: usd(value) if value is not None else ""
        for name, value in (
            ("prompt", m.usd_per_million_prompt_tokens), ("output", m.usd_per_million_output_tokens)
        )
    }  # fmt: skip
    energy = m.energy_at_tdp_j_per_output_token
    offered = extras(run.outcome, run.pools).offered_requests_per_s
    return {
        "parameters, total": count(total_params(on.architecture)),
        "parameters, active": count(active_params(on.architecture)),
        "layout": layout_words(run),
        "requests finished": f"{m.finished:,}" + (f" of {m.finished + m.unfinished:,}"
                                                  if m.unfinished else ""),
        "requests/s offered": rate(offered) if offered is not None else "",
        "requests/s finished": rate(m.requests_per_s),
        "first arrival to last finish": seconds(m.duration_s),
        "prompt tokens/s": rate(m.prompt_tokens_per_s),
        "output tokens/s": rate(m.output_tokens_per_s),
        "output tokens/s per device": rate(m.output_tokens_per_s_per_device),
        "tokens/s per user (1/TPOT p50)": rate(m.output_tokens_per_s_per_user),
        "good requests/s": rate(m.goodput_requests_per_s)
        if m.goodput_requests_per_s is not None else "",
        "requests that keep the objective": percent(m.good_fraction)
        if m.good_fraction is not None else "",
        "preemptions": f"{m.preemptions:,}",
        "weights per device": binary(weight_bytes(run.memory.parts_bytes)),
        "cache of a replica": f"{run.memory.cache_tokens:,} tokens",
        "price per million output tokens": usd_of["output"],
        "price per million prompt tokens": usd_of["prompt"],
        "energy per output token at TDP": readable(energy, "j") if energy is not None else "",
        **cluster_cells(run),
    }  # fmt: skip


def latency_rows(run: Served, dialect: str) -> list[tuple[Measure, Row]]:
    """Return each latency in the words of a tool, with its mean and percentiles."""
    warm_up = run.outcome.run.scenario.serving.workload.warm_up
    found = measures(dialect, counted(run.outcome.requests, warm_up), run.outcome.metrics.itl_s)
    return [(one, quantile_cells(one.quantiles)) for one in found]


def quantile_cells(of: Quantiles) -> Row:
    """Return mean, p50, p90, p95, p99."""
    return tuple(seconds(value) for value in (of.mean, of.p50, of.p90, of.p95, of.p99))


def assumptions(result: ServingFindings) -> list[str]:
    """Return, in sentences, what the model of this run leaves out or takes for granted."""
    run = result.model.outcome.run
    rows = kernels(run)
    missing = [row["kernel"] for row in rows if row["tag"] == "none"]
    said = []
    for tag in ("fitted", "transferred"):
        profiles = sorted({row["profile"] for row in rows if row["tag"] == tag})
        if profiles:
            said.append(f"Kernel times {tag} from measurements: {', '.join(profiles)}.")
    if missing:
        said.append(
            "No measured curve was found where these were asked for, so another format's curve or "
            "a roofline of datasheet peaks at an assumed share stands for them: "
            f"{'; '.join(missing)}."
        )
    said += [
        *of_run(run),
        "A decode step's attention follows the tokens in the cache of all sequences together, as "
        "if they were equally long.",
        "Gaps between tokens (ITL) are those of all iterations from the arrival of the first "
        "request after the warm-up on.",
        "A preemption: a request lost its place in a full cache, and was computed again.",
        "Energy is that of the devices at their thermal design power; hosts and cooling are left "
        "out. Prices are those of all devices over the whole run, divided by the tokens named.",
    ]
    if result.model.outcome.metrics.finished:
        said.append(
            "Throughput is over the time from the first arrival that counts to the last finish, so "
            "a short run has less of it than of requests offered."
        )
    if result.model.curve:
        said.append(
            "The curve is a closed loop of requests as long as the mean prompt and output, three "
            f"times as many as are in flight, up to {MOST:,} requests a point."
        )
    return said


def sourced(result: ServingFindings) -> Sequence[SourcedFigure]:
    """Return the hardware and software figures of the run."""
    run = result.model.outcome.run
    return (*run.cluster.figures, *run.deployment.software.figures)
