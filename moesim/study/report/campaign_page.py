"""A campaign on the report page: a table, how its days spread, and where its time goes."""

from html import escape

from moesim.study.campaign import Campaign
from moesim.study.report import campaign_words
from moesim.study.report.campaign_figures import DAY_S, PARTS
from moesim.study.report.charts import Chart, plain_layout
from moesim.study.report.words import percent

_COLOURS = {
    "training_s": "#1f7a53",
    "straggling_s": "#8ab17d",
    "lost_s": "#d1495b",
    "checkpoint_s": "#1b6ca8",
    "restart_s": "#e07a5f",
    "waiting_s": "#e9c46a",
}


def section(campaign: Campaign | None) -> str:
    """Return the section of the page; empty without a campaign."""
    if campaign is None:
        return ""
    heads = "".join(f"<th>{head}</th>" for head in campaign_words.HEADS)
    rows = "".join(
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in campaign_words.rows(campaign)
    )
    said = "".join(
        f"<p class='note'>{escape(line)}</p>" for line in campaign_words.sentences(campaign)
    )
    return (
        f"<section><h2>The whole campaign</h2>{said}<table class='figures'><thead><tr>{heads}</tr>"
        f"</thead><tbody>{rows}</tbody></table></section>"
        f'<section><h2>How long it takes</h2><p class="note">Days of the {len(campaign.logs)} '
        "simulated campaigns, from the luckiest to the unluckiest; the dashed line is training "
        'that nothing interrupts.</p><div id="campaign_days" class="picture"></div></section>'
        '<section><h2>Where the days go</h2><p class="note">Mean over the campaigns, without the '
        'training that is kept.</p><div id="campaign_time" class="picture"></div></section>'
    )


def pictures(campaign: Campaign | None) -> dict[str, Chart]:
    """Return the pictures of a campaign by name; none without a campaign."""
    if campaign is None:
        return {}
    return {"campaign_days": _days(campaign), "campaign_time": _time(campaign)}


def _days(campaign: Campaign) -> Chart:
    days = sorted(log.wall_s / DAY_S for log in campaign.logs)
    count = len(days)
    dots = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": days,
        "y": [100 * (number + 1) / count for number in range(count)],
        "line": {"shape": "hv", "color": "#1b6ca8"},
        "hovertemplate": "%{x:.4g} days or less: %{y:.0f} %<extra></extra>",
        "showlegend": False,
    }
    ideal = campaign.uninterrupted_s / DAY_S
    end = max(days[-1], ideal)
    edge = 0.05 * (end - ideal) or 0.05 * end
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": ideal, "x1": ideal}
    layout = plain_layout(
        320,
        xaxis={
            "title": {"text": "days"}, "gridcolor": "#e4e7eb", "range": [ideal - edge, end + edge],
        },
        yaxis={
            "title": {"text": "campaigns done, %"}, "range": [0, 105], "gridcolor": "#e4e7eb",
            "automargin": True,
        },
        shapes=[{**line, "line": {"color": "#1f7a53", "dash": "dash", "width": 1.5}}],
    )  # fmt: skip
    return {"data": [dots], "layout": layout}


def _time(campaign: Campaign) -> Chart:
    wall_s = sum(log.wall_s for log in campaign.logs)
    data = []
    for name, said in PARTS.items():
        seconds = sum(getattr(log, name) for log in campaign.logs)
        if name == "training_s" or seconds <= 0:
            continue
        days = seconds / len(campaign.logs) / DAY_S
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": said,
                "y": [said],
                "x": [days],
                "hovertext": [f"{said}: {days:.3g} days, {percent(seconds / wall_s)}"],
                "hoverinfo": "text",
                "marker": {"color": _COLOURS[name]},
                "showlegend": False,
            }
        )
    layout = plain_layout(
        110 + 40 * len(data),
        xaxis={"title": {"text": "days of a campaign"}, "gridcolor": "#e4e7eb"},
        yaxis={"automargin": True, "autorange": "reversed", "ticksuffix": "  "},
    )
    return {"data": data, "layout": layout}
