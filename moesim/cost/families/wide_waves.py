"""Which products DeepGEMM computes in one wave of tiles wider than 160 columns.

On sm_90 it takes the tiles with the fewest waves, then those that fill the last wave most, among
64, 128 and 256 rows by up to 160, 192 or 256 columns, one side not above 128
(github.com/deepseek-ai/DeepGEMM, csrc/jit_kernels/heuristics, from memory, unchecked). Where
128 x 160 and 64 x 256 need a second wave and wider ones do not, the kernels of SGLang 0.5.14 that
were measured on H100 and H200 take 1.8 to 3.3 times as long as beside it: always with 128 x 192,
with an even number of rows of tiles with 128 x 256, and with an even number of columns of tiles
with 256 x 96. Up to 192 rows they do not.
"""

from math import ceil

import numpy as np

from moesim.cost.surface import Array

_NARROW = ((128, 160), (64, 256))
_WIDE = ((128, 192), (128, 256), (256, 96), (256, 112), (256, 128))
_LEAST_ROWS = 192


def wide_wave(m: Array, n: Array, units: int) -> Array:
    """Return 1, 2 or 3 where a product runs as one slow wave, by its tiles in the order above.

    0 where it does not. Of m rows and n columns on so many units.
    """
    chosen, best = np.full(np.shape(m), -1), np.zeros(np.shape(m))
    for number, (a, b) in enumerate(_WIDE):
        tiles = np.ceil(m / a) * np.ceil(n / b)
        fuller = (tiles <= units) & (tiles > best)
        best, chosen = np.where(fuller, tiles, best), np.where(fuller, number, chosen)
    slow = chosen == 0
    slow |= (chosen == 1) & (np.ceil(m / 128) % 2 == 0)
    slow |= (chosen == 2) & (np.ceil(n / 96) % 2 == 0)
    for a, b in _NARROW:
        slow &= np.ceil(m / a) * np.ceil(n / b) > units
    return np.where(slow & (m > _LEAST_ROWS), chosen + 1.0, 0.0)


def scalar_wide_wave(m: float, n: float, units: int) -> float:
    """Return the same for one product, without numpy."""
    if m <= _LEAST_ROWS or any(ceil(m / a) * ceil(n / b) <= units for a, b in _NARROW):
        return 0.0
    chosen, best = -1, 0
    for number, (a, b) in enumerate(_WIDE):
        tiles = ceil(m / a) * ceil(n / b)
        if best < tiles <= units:
            best, chosen = tiles, number
    even = {1: ceil(m / 128) % 2 == 0, 2: ceil(n / 96) % 2 == 0}
    return chosen + 1.0 if chosen == 0 or even.get(chosen, False) else 0.0
