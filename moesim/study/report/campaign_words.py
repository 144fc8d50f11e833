"""A campaign in words and rows: what terminal and page share."""

from collections.abc import Callable

from moesim.study.campaign import Campaign, Quantiles
from moesim.study.report.campaign_figures import DAY_S, PARTS, figures, shares
from moesim.study.report.words import binary, percent, usd
from moesim.units import readable, three_digits

HEADS = ("", "p5", "p50", "p95", "mean", "share")


def rows(campaign: Campaign) -> list[tuple[str, ...]]:
    """Return the figures that vary: name, quantiles, mean, and its share of all time."""
    found = {name: campaign.over_seeds(figure) for name, figure in figures(campaign).items()}
    listed = [
        ("days", *_cells(found["wall_days"], three_digits)),
        ("goodput", *_cells(found["goodput_fraction"], percent)),
    ]
    if "usd" in found:
        listed.append(("cost", *_cells(found["usd"], usd)))
    listed.append(("failures", *_cells(found["failures"], three_digits)))
    table: list[tuple[str, ...]] = [(*row, "") for row in listed]
    parts = zip(PARTS.items(), shares(campaign).values(), strict=True)
    for (name, said), share in parts:
        if found[name].p95 > 0:
            cells = _cells(found[name], lambda seconds: readable(seconds, "s"))
            table.append((said, *cells, percent(share)))
    return table


def _cells(over: Quantiles, write: Callable[[float], str]) -> tuple[str, str, str, str]:
    return (write(over.p5), write(over.p50), write(over.p95), write(over.mean))


def sentences(campaign: Campaign) -> list[str]:
    """Return what the figures mean and what they rest on."""
    plan = campaign.plan
    said = [
        f"{plan.steps:,} steps would take {three_digits(campaign.uninterrupted_s / DAY_S)} days if "
        f"nothing interrupted them; the job fails every {readable(campaign.mtbf_s, 's')} on "
        "average. Goodput: time of the kept steps at their simulated speed, over all time.",
        f"A checkpoint has {binary(campaign.checkpoint_bytes)}, takes "
        f"{readable(campaign.write_s, 's')} to write and stops training for "
        f"{readable(plan.blocked_s, 's')}; Young's best interval would be "
        f"{readable(campaign.young_interval_s, 's')} of training.",
        "Failures are independent and take out one node each; idle nodes do not fail. Storage and "
        "network are as fast after a failure as before, and a restart does not warm up.",
    ]
    if len(plan.phases) > 1:
        each = "; ".join(
            f"{phase.steps:,} of {phase.global_batch:,} sequences at {readable(phase.step_s, 's')}"
            for phase in plan.phases
        )
        said.insert(1, f"Steps by batch: {each}.")
    if plan.background_s > campaign.interval_s:
        said.insert(
            -1,
            f"Training waits for checkpoints: one is due every {readable(campaign.interval_s, 's')}"
            f", but writing it takes {readable(plan.background_s, 's')}. Save less often, or write "
            "faster.",
        )
    if campaign.usd_per_s is not None and plan.spare_nodes:
        said.append(f"The cost includes {plan.spare_nodes} spare nodes.")
    return said
