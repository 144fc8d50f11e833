"""Every house rule under its name: a function from the root of a tree to what breaks the rule."""

from collections.abc import Callable
from pathlib import Path

from tests.house.rules import (
    danger,
    documented,
    floors,
    homes,
    output,
    public,
    seconds,
    sourced,
    startup,
    state,
    tracked,
    walls,
)

Rule = Callable[[Path], list[str]]

RULES: dict[str, Rule] = {
    "walls": walls.violations,
    "H1-floors": floors.violations,
    "H1-cycles": floors.cycle_violations,
    "H1-contract": floors.contract_violations,
    "H2-lazy": homes.lazy_violations,
    "H3-homes": homes.violations,
    "H4-seconds": seconds.violations,
    "H4-work": seconds.work_violations,
    "H5-state": state.violations,
    "H5-random": state.random_violations,
    "H5-clock": state.clock_violations,
    "H6-output": output.violations,
    "H7-sourced": sourced.violations,
    "H8-public": public.violations,
    "docstrings": documented.violations,
    "annotations": documented.annotation_violations,
    "danger": danger.violations,
    "top-level": tracked.violations,
    "places": tracked.place_violations,
    "startup-imports": startup.violations,
    "startup-time": startup.time_violations,
}
NEED_GIT = ("top-level", "places")
NEED_COMMAND = ("startup-imports", "startup-time")
