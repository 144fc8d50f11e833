"""Kernels bound by memory: norms, rope, activation, residual add, embedding, fp8 quantisation.

`rows` are tokens; `cols` is the width of a row as the tables count it. An operator of our own is
one row of samples with `rows`, `cols` and the column `moved_bytes`, which takes precedence.
"""

from collections.abc import Callable

import numpy as np

from moesim.cost.curves import Array, Chip, Family, Parameters, Samples
from moesim.cost.surface import Axis

BYTES_PER_COLUMN = {
    "rmsnorm": 4.0,
    "rope": 4.0,
    "silu_and_mul": 6.0,
    "residual_add": 6.0,
    "embedding": 4.0,
    "fp8_quantize": 3.0,
    "fp8_amax_and_scale": 2.0,
}
"""Bytes read and written per row and column, 16-bit numbers in and out; fp8 out is one byte.

silu_and_mul reads two numbers for each that it writes, residual_add too. fp8_amax_and_scale reads
16-bit numbers for their maximum and writes one scale.
"""


def moved_bytes(samples: Samples, per_column: float) -> Array:
    """Return the bytes read and written: those of the column `moved_bytes`, or rows * cols * b."""
    given = samples.get("moved_bytes")
    return samples["rows"] * samples["cols"] * per_column if given is None else given


def elementwise_bound_s(samples: Samples, chip: Chip, per_column: float) -> Array:
    """Return the seconds that no kernel can beat: what the L2 cache cannot hold, at bandwidth.

    One cache full may be there before, and one stay there after.
    """
    moved = np.maximum(moved_bytes(samples, per_column) - 2.0 * chip.l2_bytes, 0.0)
    return moved / chip.memory_bandwidth_bytes_per_s


def elementwise_s(samples: Samples, chip: Chip, parameters: Parameters, per_column: float) -> Array:
    """Return the seconds of a kernel that reads and writes rows once.

    t = launch + rows t_row / units + max(1, rows / (units rows_per_unit)) cols t_col
      + bytes / bandwidth (h (1 + e) + (1 - h) s),  h = bytes / (bytes + L2)

    One block of threads walks along each row, `rows_per_unit` of them at a time on a unit; repeated
    measurements find in the L2 cache what fits into it, and moving that takes s times as long as at
    memory bandwidth.
    """
    moved = moved_bytes(samples, per_column)
    outside = moved / (moved + chip.l2_bytes)
    slowness = outside * (1.0 + parameters["memory_excess"])
    slowness = slowness + (1.0 - outside) * parameters["l2_slowness"]
    rows = samples["rows"] / chip.compute_units
    walk = np.maximum(rows / parameters["rows_per_unit"], 1.0) * samples["cols"]
    busy = rows * parameters["row_s"] + walk * parameters["col_s"]
    memory = moved / chip.memory_bandwidth_bytes_per_s * slowness
    return parameters["launch_s"] + busy + memory


def _start(chip: Chip, dtype: str) -> dict[str, float]:
    del chip, dtype
    return {
        "launch_s": 2e-6, "row_s": 2e-8, "rows_per_unit": 8.0, "col_s": 1e-10,
        "memory_excess": 0.2, "l2_slowness": 0.5,
    }  # fmt: skip


def _coordinates(samples: Samples) -> tuple[Array, ...]:
    return np.log2(samples["rows"]), np.log2(samples["cols"])


def _samples_at(places: tuple[Array, ...]) -> Samples:
    return {"rows": np.exp2(places[0]), "cols": np.exp2(places[1])}


def _physics(per_column: float) -> Callable[[Samples, Chip, str, Parameters], Array]:
    def physics(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
        del dtype
        return elementwise_s(samples, chip, parameters, per_column)

    return physics


def _bound(per_column: float) -> Callable[[Samples, Chip, str], Array]:
    def bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
        del dtype
        return elementwise_bound_s(samples, chip, per_column)

    return bound_s


def _family(operator: str, per_column: float) -> Family:
    return Family(
        name=operator,
        table="elementwise",
        physics=_physics(per_column),
        start=_start,
        coordinates=_coordinates,
        axes=(
            Axis("log2 rows", (0.0, 5.0, 8.0, 9.0, 10.0, 11.0, 12.0, 15.0)),
            Axis("log2 cols", (5.0, 10.0, 12.0, 14.0, 16.0)),
        ),
        bound_s=_bound(per_column),
        samples_at=_samples_at,
        rising=((1, 0), (0, 1)),
        around=4.0,
        quantum={"rows": 0.02, "cols": 0.03},
        quantum_beyond=0.3,
    )


ELEMENTWISE = {name: _family(name, size) for name, size in BYTES_PER_COLUMN.items()}
"""A family for each operator of the table, by its name there."""
