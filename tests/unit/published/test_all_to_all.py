"""How the all-to-all of GShard grows with the machine: sec. 5 of arXiv 2006.16668, TPU v3."""

import pytest

from moesim.cost.collectives import uniform_all_to_all_s
from moesim.hardware.torus import Torus, covered_axes
from tests.unit.cost.machines import net

CHIPS = {16: (2, 4), 128: (8, 8), 2048: (32, 32)}
"""Slices of a TPU v3 pod by cores, two to a chip; assumed, the paper names the cores."""


def _seconds(cores: int) -> float:
    """Return the time in which every chip spreads the same bytes over all chips."""
    shape = CHIPS[cores]
    torus = Torus(shape, tuple(length > 2 for length in shape))
    size = shape[0] * shape[1]
    here = net(1, size, axes=covered_axes(torus, size, 1), link_bytes_per_s=1e9)
    return uniform_all_to_all_s(1e9, here)


@pytest.mark.parametrize(("few", "printed", "band"), [(128, 3.75, 0.10), (16, 9.0, 0.15)])
def test_all_to_all_grows_with_the_side_of_the_torus(few: int, printed: float, band: float) -> None:
    """O(sqrt(D)): 3.75 times from 128 to 2048 partitions, 9 times from 16. Band: 10 and 15 %."""
    assert _seconds(2048) / _seconds(few) == pytest.approx(printed, rel=band)
