"""The sentences and rows that terminal and page share: verdict, comparison, memory."""

from moesim.hardware.rank_order import DEFAULT_ORDER
from moesim.model.parameters import active_params, total_params
from moesim.study.advice import Change
from moesim.study.findings import Baseline, Findings
from moesim.study.outcome import Outcome
from moesim.units import readable, three_digits

Row = tuple[str, ...]


def percent(fraction: float) -> str:
    """Return `fraction` as a percentage with three significant digits at most."""
    return f"{three_digits(100 * fraction)} %" if abs(fraction) > 1e-9 else "0 %"


def binary(size: float) -> str:
    """Return bytes in GiB (or MiB), three significant digits."""
    if abs(size) >= 2**29:
        return f"{three_digits(size / 2**30)} GiB"
    return f"{three_digits(size / 2**20)} MiB"


def count(number: float) -> str:
    """Return a count with a prefix: 46.7 B for billions of parameters, and so on."""
    for scale, prefix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * scale:
            return f"{three_digits(number / scale)} {prefix}"
    return three_digits(number)


def usd(value: float) -> str:
    """Return an amount of money; cents below ten dollars."""
    if value >= 1e6:
        return f"${three_digits(value / 1e6)} M"
    return f"${value:,.0f}" if value >= 100 else f"${three_digits(value)}"


def verdict(result: Findings) -> list[str]:
    """Return what a reader should take away, in a few sentences."""
    return [
        _own_verdict(result.outcome),
        *(_comparison_verdict(result.outcome, one) for one in result.baselines),
        *_data(result.outcome),
        *_advice(result),
    ]


def _data(outcome: Outcome) -> list[str]:
    """Say where data sets the pace: nothing else would make the step shorter then."""
    waited = outcome.first.load_exposed_s / outcome.first.seconds
    if not waited:
        return []
    return [f"The data of a step comes too late: the devices wait {percent(waited)} of it."]


def _own_verdict(outcome: Outcome) -> str:
    run, metrics = outcome.run, outcome.metrics
    where = f"{run.layout.devices} x {run.cluster.device.name} ({run.cluster.name})"
    if not outcome.fits:
        missing = outcome.peak_bytes - outcome.capacity_bytes
        return (
            f"{run.architecture.name} does not fit on {where}: the fullest device needs "
            f"{binary(outcome.peak_bytes)} of {binary(outcome.capacity_bytes)}, "
            f"{binary(missing)} too much. The times below are what it would do with more memory."
        )
    return (
        f"{run.architecture.name} on {where}: {readable(metrics.step_s, 's')} per step, "
        f"{three_digits(metrics.tokens_per_s_per_device)} tokens/s per device, "
        f"MFU {percent(metrics.mfu_fraction)}, "
        f"{binary(outcome.peak_bytes)} of {binary(outcome.capacity_bytes)} memory."
    )


def _comparison_verdict(model: Outcome, one: Baseline) -> str:
    dense = one.outcome
    ratio = model.metrics.tokens_per_s / dense.metrics.tokens_per_s
    efficiency = model.metrics.flop_per_s_per_device / dense.metrics.flop_per_s_per_device
    said = (
        f"It trains at {three_digits(ratio)} times the tokens/s of {_the(dense)} "
        f"({one.relation}; {layout_words(dense)}), with {three_digits(efficiency)} times its FLOP/s"
    )
    if not dense.fits:
        said += f"; that baseline itself does not fit ({binary(dense.peak_bytes)} needed)"
    return f"{said}."


def _the(outcome: Outcome) -> str:
    name = outcome.run.architecture.name
    return f"the {name}" if name.startswith("dense twin") else name


def _advice(result: Findings) -> list[str]:
    if result.fits:
        return []
    enough = [change for change in result.changes if change.fits]
    if enough and not enough[0].single:
        listed = "; ".join(_change_words(change) for change in enough)
        alone = "; ".join(_change_words(change) for change in result.changes[len(enough) :][:4])
        return [
            f"No single change is enough. Together these would make it fit, the fastest first: "
            f"{listed}. What helps most alone: {alone}."
        ]
    if enough:
        listed = "; ".join(_change_words(change) for change in enough[:6])
        more = f" ({len(enough) - 6} more in summary.json)" if len(enough) > 6 else ""
        return [f"Any one of these would make it fit, the fastest first: {listed}{more}."]
    if result.changes:  # not even several together
        listed = "; ".join(_change_words(change) for change in result.changes[:4])
        return [f"No few changes together are enough. What helps most: {listed}."]
    return ["No single change of layout, recomputation or optimizer helps: take more devices."]


def _change_words(change: Change) -> str:
    return (
        f"{' and '.join(change.settings)} ({binary(change.saved_bytes)} less: "
        f"{binary(change.peak_bytes)}, {readable(change.step_s, 's')} per step)"
    )


def comparison_rows(result: Findings) -> list[Row]:
    """Return the figures of model and baseline side by side; the first cell names the figure."""
    columns = [_column(outcome) for _, outcome in result.runs]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return [row for row in rows if any(cell != "" for cell in row[1:])]


def _column(outcome: Outcome) -> dict[str, str]:
    run, m = outcome.run, outcome.metrics
    return {
        "parameters, total": count(total_params(run.architecture)),
        "parameters, active": count(active_params(run.architecture)),
        "layout": layout_words(outcome),
        "step time": readable(m.step_s, "s"),
        "tokens/s": count(m.tokens_per_s),
        "tokens/s per device": three_digits(m.tokens_per_s_per_device),
        "useful FLOP per token": readable(m.model_flop_per_token, "flop"),
        "achieved per device": readable(m.flop_per_s_per_device, "flop_per_s"),
        "MFU": percent(m.mfu_fraction),
        "HFU": percent(m.hfu_fraction),
        "exposed communication": percent(m.exposed_fraction),
        "pipeline bubble": percent(m.bubble_fraction),
        "dropped tokens": _dropped(outcome),
        "memory, fullest device": f"{binary(outcome.peak_bytes)}"
        + ("" if outcome.fits else " (does not fit)"),
        "cost per million tokens": usd(m.usd_per_million_tokens)
        if m.usd_per_million_tokens is not None
        else "no price known",
        "energy per token at TDP": readable(m.energy_at_tdp_j_per_token, "j")
        if m.energy_at_tdp_j_per_token is not None
        else "",
        "days to train": three_digits(m.training_days) if m.training_days is not None else "",
        "cost to train": usd(m.training_usd) if m.training_usd is not None else "",
    }


def _dropped(outcome: Outcome) -> str:
    loads = (outcome.varied or outcome.loads).values()
    routed = sum(load.routed for load in loads)
    return percent(sum(load.dropped for load in loads) / routed) if routed else "no experts"


def layout_words(outcome: Outcome) -> str:
    """Return the degrees above one, such as "tp 2, pp 4, ep 8, dp 8"."""
    layout = outcome.run.layout
    names: tuple[str, ...] = ("tp", "cp", "pp", "vpp", "ep", "etp", "dp")
    if not outcome.run.architecture.is_moe:
        names = ("tp", "cp", "pp", "vpp", "dp")
    parts = [f"{name} {getattr(layout, name)}" for name in names if getattr(layout, name) > 1]
    if layout.rank_order != DEFAULT_ORDER:
        parts.append(f"ranks in the order {layout.rank_order}")
    if outcome.run.cluster.topology.placement:
        parts.append("ranks placed as given")
    return ", ".join(parts) or "one device"


def mix(result: Findings) -> dict[str, int]:
    """Return how many hardware and software figures of the run are of each kind."""
    figures = (*result.outcome.run.cluster.figures, *result.outcome.run.software.figures)
    kinds: dict[str, int] = {}
    for figure in figures:
        kinds[figure.kind] = kinds.get(figure.kind, 0) + 1
    return dict(sorted(kinds.items()))
