"""The pictures of the report, as plotly's plain data: {"data": [...], "layout": {...}}."""

from typing import Any

from moesim.cost.memory import StageMemory
from moesim.study.findings import Findings
from moesim.study.outcome import Outcome
from moesim.study.report.memory_levels import lines
from moesim.study.report.words import binary, percent
from moesim.units import readable

Chart = dict[str, Any]

COLOURS = {
    "attention": "#1b6ca8",
    "attention projections": "#4f9bd0",
    "dense FFN": "#2a9d8f",
    "experts": "#1f7a53",
    "router": "#8ab17d",
    "norms": "#b7c9c3",
    "logits": "#5c677d",
    "embedding": "#9aa5b1",
    "MTP projection": "#7d8597",
    "recomputation": "#6d597a",
    "optimizer": "#b08968",
    "dispatch": "#d1495b",
    "combine": "#e07a5f",
    "tensor parallel": "#f28482",
    "context parallel": "#f6a6a1",
    "expert tensor parallel": "#f7b7a3",
    "gradient reduction": "#b5179e",
    "weight gathering": "#d65db1",
    "data loading": "#c9a227",
    "pipeline bubble": "#e9c46a",
}
"""Blue and green compute, red and pink exposed communication, yellow idle."""

_OTHER = "#888888"
_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#1f2933"}
_MAX_BARS = 4000


def charts(result: Findings) -> dict[str, Chart]:
    """Return the pictures by name."""
    found = {
        "breakdown": breakdown(result),
        "memory": memory(result),
        "memory_timeline": memory_over_time(result.outcome),
    }
    if result.outcome.run.layout.pp > 1:
        found["timeline"] = timeline(result.outcome)
    if result.outcome.loads:
        found["routing"] = routing(result.outcome)
    return found


def plain_layout(height: int, **more: Any) -> dict[str, Any]:
    """Return the layout that all pictures share: type, margins, white paper."""
    return {
        "font": _FONT,
        "height": height,
        "margin": {"l": 10, "r": 10, "t": 10, "b": 45},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        **more,
    }


def breakdown(result: Findings) -> Chart:
    """Return the step time of model and baseline as stacked bars."""
    runs = [outcome for _, outcome in reversed(result.runs)]
    names = [_wrapped(outcome.run.architecture.name) for outcome in runs]
    parts = _ordered_parts(runs[::-1])
    data = []
    for part in parts:
        seconds = [_seconds(outcome, part) for outcome in runs]
        shown = [
            f"{part}: {readable(s, 's')}, {percent(s / o.first.seconds)}"
            for s, o in zip(seconds, runs, strict=True)
        ]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": part,
                "y": names,
                "x": seconds,
                "hovertext": shown,
                "hoverinfo": "text",
                "marker": {"color": COLOURS.get(part, _OTHER)},
            }
        )
    layout = plain_layout(
        230 + 75 * len(runs),
        barmode="stack",
        xaxis={"title": {"text": "seconds per step (mean over stages)"}, "gridcolor": "#e4e7eb"},
        yaxis={"automargin": True, "ticksuffix": "  "},
        legend={"orientation": "h", "y": -75 / (40 + 75 * len(runs)), "traceorder": "normal"},
    )
    return {"data": data, "layout": layout}


def _ordered_parts(runs: list[Outcome]) -> list[str]:
    """Return all parts by kind, in the order of the kinds; the largest of a kind first."""
    order = {"compute": 0, "exposed": 1, "waiting": 2, "idle": 3}
    kinds = {share.name: order[share.kind] for run in runs for share in run.breakdown}
    return sorted(kinds, key=lambda part: (kinds[part], -max(_seconds(run, part) for run in runs)))


def _seconds(outcome: Outcome, part: str) -> float:
    return sum(share.seconds for share in outcome.breakdown if share.name == part)


def _wrapped(name: str) -> str:
    return name.replace("dense twin of ", "dense twin of<br>")


_MEMORY = {
    "expert weights": "#1f7a53",
    "attention weights": "#1b6ca8",
    "ffn weights": "#2a9d8f",
    "embedding weights": "#5c677d",
    "gradients": "#e07a5f",
    "optimizer states": "#b08968",
    "unsharded": "#e9c46a",
    "activations": "#6d597a",
    "working set": "#b09bbd",
    "fragmentation": "#cbd2d9",
    "reserved": "#9aa5b1",
}


def memory(result: Findings) -> Chart:
    """Return the memory of one rank of each stage as stacked bars, with the device's capacity."""
    stages = [
        (who, number, stage)
        for who, outcome in _named_runs(result)
        for number, stage in enumerate(_shown_stages(outcome))
    ]
    labels = [[who for who, _, _ in stages], [f"stage {number}" for _, number, _ in stages]]
    data: list[dict[str, Any]] = []
    for part, colour in _MEMORY.items():
        sizes = [dict(stage.parts()).get(part, 0.0) for _, _, stage in stages]
        if any(sizes):
            data.append(
                {
                    "type": "bar",
                    "name": part,
                    "x": labels,
                    "y": [size / 2**30 for size in sizes],
                    "hovertext": [f"{part}: {binary(size)}" for size in sizes],
                    "hoverinfo": "text",
                    "marker": {"color": colour},
                }
            )
    layout = plain_layout(
        470,
        barmode="stack",
        xaxis={"automargin": True},
        legend={"orientation": "h", "y": -0.42},
        **_up_to_capacity(result.outcome),
    )
    return {"data": data, "layout": layout}


def _up_to_capacity(outcome: Outcome) -> dict[str, Any]:
    """Return an axis of bytes per device, and the dashed line of what the device has."""
    capacity = outcome.capacity_bytes / 2**30
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": capacity, "y1": capacity}
    note = {"xref": "paper", "x": 1, "y": capacity, "yanchor": "bottom", "showarrow": False}
    return {
        "yaxis": {"title": {"text": "GiB per device"}, "gridcolor": "#e4e7eb", "automargin": True},
        "shapes": [{**line, "line": {"color": "#c1121f", "dash": "dash", "width": 1.5}}],
        "annotations": [{**note, "text": f"device has {binary(capacity * 2**30)}"}],
    }


def memory_over_time(outcome: Outcome) -> Chart:
    """Return the bytes on one device of each stage over the first step."""
    layout = plain_layout(
        420,
        xaxis={"title": {"text": "seconds"}, "gridcolor": "#e4e7eb"},
        legend={"orientation": "h", "y": -0.2},
        showlegend=True,
        **_up_to_capacity(outcome),
    )
    layout["yaxis"]["rangemode"] = "tozero"
    return {"data": lines(outcome), "layout": layout}


def _named_runs(result: Findings) -> list[tuple[str, Outcome]]:
    """Return the runs by the name of their model; equal names are told apart by their role."""
    named = [(_wrapped(o.run.architecture.name), role, o) for role, o in result.runs]
    names = [name for name, _, _ in named]
    return [(n if names.count(n) == 1 else f"{n} ({role})", o) for n, role, o in named]


def _shown_stages(outcome: Outcome) -> tuple[StageMemory, ...]:
    return outcome.memory[:32]


def timeline(outcome: Outcome) -> Chart:
    """Return the first step's passes on every stage: forward, backward, and what is in between."""
    colours = {
        "F": "#4f9bd0", "B": "#1f7a53", "I": "#5fae8b", "W": "#9bc53d", "o": "#b08968",
        "r": "#b5179e", "g": "#d65db1",
    }  # fmt: skip
    names = {
        "F": "forward", "B": "backward", "I": "gradients of inputs", "W": "gradients of weights",
        "o": "optimizer", "r": "gradient reduction",
        "g": "weight gathering",
    }  # fmt: skip
    stages = min(outcome.run.layout.pp, 32)
    shown = [s for s in outcome.slices if int(s.track.split(" ")[1]) < stages][:_MAX_BARS]
    data = []
    for kind, name in names.items():
        slices = [one for one in shown if one.name[0] == kind]
        if not slices:
            continue
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "base": [round(one.start_s, 6) for one in slices],
                "x": [round(one.duration_s, 6) for one in slices],
                "y": [_lane(one.track) for one in slices],
                "hovertext": [f"{one.name}: {readable(one.duration_s, 's')}" for one in slices],
                "hoverinfo": "text",
                "marker": {"color": colours[kind], "line": {"color": "white", "width": 0.5}},
            }
        )
    lanes = [f"stage {n}{kind}" for n in range(stages) for kind in ("", " data-parallel")]
    used = {_lane(one.track) for one in shown}
    layout = plain_layout(
        150 + 22 * len(used),
        barmode="overlay",
        bargap=0.15,
        xaxis={"title": {"text": "seconds"}, "gridcolor": "#e4e7eb"},
        yaxis={
            "autorange": "reversed",
            "automargin": True,
            "categoryorder": "array",
            "categoryarray": [lane for lane in lanes if lane in used],
        },
        legend={"orientation": "h", "y": -75 / (40 + 22 * len(used))},
    )
    return {"data": data, "layout": layout}


def _lane(track: str) -> str:
    return track.removesuffix(" compute")


def routing(outcome: Outcome) -> Chart:
    """Return, layer by layer, the fullest rank's load over the mean and the dropped share."""
    layers = [f"{number}" for number in outcome.loads]
    loads = list(outcome.loads.values())
    dropped = [100 * load.dropped / load.routed for load in loads]
    imbalance = {
        "type": "bar",
        "name": "rows of the fullest rank / mean",
        "x": layers,
        "y": [load.rank_imbalance for load in loads],
        "marker": {"color": "#4f9bd0"},
    }
    drops: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "dropped assignments, %",
        "x": layers,
        "y": dropped,
        "yaxis": "y2",
        "marker": {"color": "#d1495b"},
    }
    layout = plain_layout(
        330,
        xaxis={"title": {"text": "MoE layer"}, "type": "category"},
        yaxis={
            "title": {"text": "fullest / mean"}, "rangemode": "tozero", "gridcolor": "#e4e7eb",
            "automargin": True,
        },
        yaxis2={
            "title": {"text": "dropped, %"}, "overlaying": "y", "side": "right",
            "rangemode": "tozero", "showgrid": False, "automargin": True,
            "range": [0, max(1.0, 1.15 * max(dropped))],
        },
        legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip
    if not any(dropped):
        del layout["yaxis2"]
        return {"data": [imbalance], "layout": layout}
    return {"data": [imbalance, drops], "layout": layout}
