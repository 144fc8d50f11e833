"""Laws of families that no shipped profile has a curve of, and of sizes of any magnitude."""

import numpy as np
import pytest

from moesim.calibrate.table_fit import chips_of
from moesim.cost.curves import Array, Curve, uncertainty
from moesim.cost.families.table import FAMILIES, bound_of, seconds_of
from tests.laws.curve_inputs import (
    NUMBERS,
    ONLY_DOUBLED,
    WITH_IT,
    Columns,
    Shipped,
    grown,
    maker,
    shipped_curves,
    sizes,
)

ROUNDING = 1e-9
ROWS = 40


def where_fits_begin() -> list[Shipped]:
    """Return a curve of each family that has none in a shipped profile, as a user's own may have.

    Its parameters are those that a fit starts from.
    """
    chip = chips_of(["h100_sxm"])["h100_sxm"]
    known = {one.curve.family for one in shipped_curves()}
    return [
        Shipped("start", family, Curve(
            family=name, dtype="bf16", variant="", parameters=family.start(chip, "bf16"),
            surface=None, rows=12, median_error=0.1, p90_error=0.2, source="made up",
        ), chip)
        for name, family in FAMILIES.items() if name not in known
    ]  # fmt: skip


def drawn(name: str) -> Columns:
    generator = np.random.Generator(np.random.Philox(key=17))
    return maker(name)(generator.random((ROWS, NUMBERS)))


def assert_possible(one: Shipped, columns: Columns) -> Array:
    with np.errstate(invalid="raise", divide="raise", over="raise"):
        found = seconds_of(one.family, one.curve, columns, one.chip)
        doubt = uncertainty(one.family, one.curve, columns)
    assert np.all(np.isfinite(found)) and np.all(found > 0), one
    assert np.all(np.isfinite(doubt)) and np.all(doubt > 0), one
    least = bound_of(one.family, columns, one.chip, one.curve.dtype)
    if least is not None:
        assert np.all(found >= least * (1 - ROUNDING)), one
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_drawn_and_grows(name: str) -> None:
    columns = drawn(name)
    for size in sizes(name):
        if size != "rows" or "routed" not in columns:
            assert set(WITH_IT.get(size, (size,))) <= set(columns)


def test_families_without_a_shipped_curve_keep_the_laws_where_their_fit_begins() -> None:
    for one in where_fits_begin():
        columns = drawn(one.family.name)
        before = assert_possible(one, columns)
        for size in sizes(one.family.name):
            for by in (2.0,) if size in ONLY_DOUBLED else (1.0, 2.0, 3.0, 32.0):
                after = assert_possible(one, grown(columns, size, np.full(ROWS, by)))
                within = one.family.quantum.get(size, 0.0)
                assert np.all(after >= before * (1 - within - ROUNDING)), (one, size, by)


MAGNITUDES = (1e-6, 1e-3, 1e3, 1e6)
"""Of one size, the others as they were drawn: out of all proportion."""


def test_a_size_of_any_magnitude_has_a_time_above_its_bound() -> None:
    """One curve of each family, the one with most rows."""
    most: dict[str, Shipped] = {}
    for one in sorted(shipped_curves(), key=lambda one: one.curve.rows):
        most[one.curve.family] = one
    for one in [*most.values(), *where_fits_begin()]:
        columns = drawn(one.family.name)
        for size in sizes(one.family.name):
            names = [name for name in WITH_IT.get(size, (size,)) if name in columns]
            least = 1.0 if size in ("heads", "ranks", "domains") else 0.0  # counts
            for by in MAGNITUDES:
                changed = {name: np.maximum(columns[name] * by, least) for name in names}
                assert_possible(one, {**columns, **changed})


def test_a_windowed_prompt_behind_endless_tokens_has_a_time() -> None:
    """Differences of sizes that floats cannot tell apart come out below zero."""
    columns = {
        "num_heads": 32.0, "num_kv_heads": 8.0, "head_dim": 128.0, "sliding_window": 128.0,
        "batch_size": 1.0, "kv_element_bytes": 2.0,
    }  # fmt: skip
    rows = {name: np.full(2, value) for name, value in columns.items()}
    rows["seq_len"], rows["past_kv_tokens"] = np.array([1e-6, 1e3]), np.array([1e10, 3e17])
    asked = [one for one in shipped_curves() if one.curve.family == "attention_prefill"]
    assert asked
    for one in asked:
        assert_possible(one, rows)
