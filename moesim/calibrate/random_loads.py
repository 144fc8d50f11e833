"""How rows with random loads are judged: the expected time of the busiest rank, and its scatter.

A measured row is the mean of five draws that nobody knows. The errors that `check` states compare
it with the time expected over all draws, so that they hold what five draws scatter by, too. Three
figures tell the two apart: the scatter of five-draw means that the curve itself predicts
(one standard deviation, s = sd(log t of a draw) / sqrt 5), the share of rows within +-1.28 s of
the expected time (80 % where draws are all there is), and the error of the middle of each cell of
one shape, number of ranks and exponent, whose rows (one per number of tokens) were drawn apart.
"""

import numpy as np

from moesim.calibrate.measurements import Group
from moesim.cost.curves import Array, Chip, Curve
from moesim.cost.families.moe_loads import with_each_load
from moesim.cost.families.table import FAMILIES, seconds_of

_AVERAGED = 5
"""Draws behind a row: measurements/README, `power_law_a`."""
_DRAWS = 16
"""Draws that the scatter is taken from: it is known to a fifth."""
_BAND = 1.2816
"""Standard deviations to either side that hold 80 % of a normal distribution."""


def note(group: Group, curve: Curve, on: Chip, errors: Array) -> str:
    """Return what to say beside the errors (predicted / measured - 1) of a group's rows."""
    scatter = _scatter(group, curve, on)
    logs = np.log1p(errors)
    inside = float(np.mean(np.abs(logs) <= _BAND * scatter))
    cells = np.abs(np.expm1(_middles(group, logs)))
    return (
        f"random loads: expected time judged; five draws alone scatter {np.median(scatter):.1%}, "
        f"{inside:.0%} of rows in their 80 % band; middle of shapes off by "
        f"{np.median(cells):.1%}, p90 {np.quantile(cells, 0.9):.1%}"
    )


def _scatter(group: Group, curve: Curve, on: Chip) -> Array:
    family = FAMILIES[curve.family]
    each = [
        np.log(seconds_of(family, curve, samples, on))
        for samples in with_each_load(group.samples, _DRAWS)
    ]
    return np.asarray(np.std(each, axis=0, ddof=1) / np.sqrt(_AVERAGED), dtype=np.float64)


def _middles(group: Group, logs: Array) -> Array:
    """Return the median over the rows of each shape, number of ranks and exponent."""
    ranks, exponent = group.samples["ep_size"], group.samples["routing"]
    keys = np.stack([group.shapes.astype(np.float64), ranks, exponent], axis=1)
    _, cell = np.unique(keys, axis=0, return_inverse=True)
    cell = cell.ravel()
    return np.asarray([np.median(logs[cell == number]) for number in range(cell.max() + 1)])
