"""A device that exists on paper only, and samples of it: no torch is needed."""

from collections.abc import Sequence

import numpy as np

from moesim import rng
from moesim.calibrate.bench import Timing
from moesim.calibrate.device import Target
from moesim.calibrate.fit import FAMILY, table
from moesim.calibrate.grid import grid
from moesim.calibrate.samples import Sample
from moesim.calibrate.suite import Case
from moesim.cost.curves import Chip

CHIP = Chip(
    name="paper", vendor="amd-cpu", peak_flop_per_s={"fp32": 1e11, "bf16": 4e11},
    memory_bandwidth_bytes_per_s=4e10, compute_units=2, l2_bytes=2.0**25, link_bytes_per_s=5e9,
)  # fmt: skip


def target(**changes: object) -> Target:
    facts: dict[str, object] = {
        "kind": "cpu", "name": "Paper CPU", "vendor": "amd-cpu", "compute_units": 2,
        "capacity_bytes": 2.0**34, "cache_bytes": 2.0**25, "dtypes": ("fp32", "bf16"),
        "torch_version": "2.13.0",
    }  # fmt: skip
    return Target(**{**facts, **changes})  # type: ignore[arg-type]


def seconds(one: Case) -> float:
    """What the made-up device takes: its family's physics at the parameters a fit starts from."""
    family = FAMILY[one.operator]
    found = family.physics(table([one]), CHIP, one.dtype, family.start(CHIP, one.dtype))
    return float(found[0])


def samples(cases: Sequence[Case] | None = None, noise: float = 0.01) -> list[Sample]:
    """Return samples of all base cases, or of these, with a little noise."""
    draw = rng.stream(3, "noise of a made-up device")
    wanted = grid(target(), in_one_call=True) if cases is None else cases
    return [
        Sample(one, Timing(seconds=s, host_s=s, spread=0.01, repeats=9))
        for one in wanted
        for s in [seconds(one) * float(np.exp(noise * draw.standard_normal()))]
    ]
