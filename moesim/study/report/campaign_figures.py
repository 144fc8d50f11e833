"""A campaign in figures: quantiles over the seeds for summary.json, one row per seed as a table."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from moesim.sim.training.campaign import CampaignLog
from moesim.study.campaign import Campaign

DAY_S = 86400.0
PARTS: Mapping[str, str] = MappingProxyType(
    {
        "training_s": "training that is kept",
        "straggling_s": "stragglers",
        "lost_s": "training done again",
        "checkpoint_s": "checkpoints",
        "restart_s": "restarts",
        "waiting_s": "waiting for nodes",
    }
)
"""Where the time goes, by the name in the log; the parts sum to all of it."""


def summary(campaign: Campaign | None) -> dict[str, Any] | None:
    """Return every figure of a campaign; a figure that varies has its quantiles over the seeds."""
    if campaign is None:
        return None
    plan = campaign.plan
    return {
        "seeds": len(campaign.logs),
        "steps": plan.steps,
        "phases": [asdict(phase) for phase in plan.phases],
        "uninterrupted_days": campaign.uninterrupted_s / DAY_S,
        "mtbf_s": campaign.mtbf_s,
        "checkpoint_bytes": campaign.checkpoint_bytes,
        "checkpoint_write_s": campaign.write_s,
        "checkpoint_blocked_s": plan.blocked_s,
        "restart_s": plan.detect_s + plan.restore_s,
        "young_interval_s": campaign.young_interval_s,
        **{name: asdict(campaign.over_seeds(figure)) for name, figure in figures(campaign).items()},
        "shares": shares(campaign),
    }


def figures(campaign: Campaign) -> dict[str, Callable[[CampaignLog], float]]:
    """Return what varies from seed to seed, by name."""
    found: dict[str, Callable[[CampaignLog], float]] = {
        "wall_days": lambda log: log.wall_s / DAY_S,
        "goodput_fraction": lambda log: log.goodput_fraction,
    }
    usd_per_s = campaign.usd_per_s
    if usd_per_s is not None:
        found["usd"] = lambda log: log.wall_s * usd_per_s
    found |= {name: _part(name) for name in PARTS}
    return found | {
        "failures": lambda log: log.failures,
        "checkpoints": lambda log: log.checkpoints,
    }


def _part(name: str) -> Callable[[CampaignLog], float]:
    return lambda log: float(getattr(log, name))


def shares(campaign: Campaign) -> dict[str, float]:
    """Return the share of each part in the time of all seeds together."""
    wall_s = sum(log.wall_s for log in campaign.logs)
    return {
        f"{name.removesuffix('_s')}_fraction": sum(getattr(log, name) for log in campaign.logs)
        / wall_s
        for name in PARTS
    }


def rows(campaign: Campaign) -> list[dict[str, Any]]:
    """Return one row per seed."""
    varying = figures(campaign)
    return [
        {"campaign": number, **{name: figure(log) for name, figure in varying.items()}}
        for number, log in enumerate(campaign.logs)
    ]
