"""Laws of kernel times, on every curve of every shipped profile.

Every operator has a time, no time beats the datasheet, and what grows does not get faster, but for
the quantum that its family states.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moesim.cost.curves import (
    Array,
    Chip,
    Curve,
    Family,
    is_extrapolated,
    octaves_beyond,
    predict_s,
    uncertainty,
)
from moesim.cost.families import gemm, moe, simple
from moesim.cost.families.gemm import padding
from moesim.cost.families.table import bound_of, seconds_of
from tests.laws.curve_inputs import (
    NUMBERS,
    ONLY_DOUBLED,
    Columns,
    Shipped,
    grown,
    maker,
    shipped_curves,
    sizes,
)

ROUNDING = 1e-9
CURVES = st.sampled_from(range(len(shipped_curves())))
PLACES = st.lists(st.floats(0.0, 1.0), min_size=NUMBERS, max_size=NUMBERS)
COUNTS = ("ranks", "domains", "experts", "top_k", "sms")
"""What there is one of at least."""
FACTORS = st.floats(1.0, 1024.0)


def shipped(families: tuple[str, ...] = ()) -> Iterator[Shipped]:
    return (one for one in shipped_curves() if not families or one.curve.family in families)


def seconds(one: Shipped, columns: Columns) -> Array:
    return seconds_of(one.family, one.curve, columns, one.chip)


def assert_possible(one: Shipped, columns: Columns) -> Array:
    """Every operator has a time, which is not below what the datasheet allows."""
    with np.errstate(invalid="raise", divide="raise", over="raise"):
        found = seconds(one, columns)
    assert np.all(np.isfinite(found)) and np.all(found > 0), one
    least = bound_of(one.family, columns, one.chip, one.curve.dtype)
    if least is not None:
        assert np.all(found >= least * (1 - ROUNDING)), (one, np.min(found / least))
    return found


def assert_no_faster(one: Shipped, columns: Columns, size: str, by: Array) -> None:
    more = grown(columns, size, by)
    kept = seconds(one, more) / seconds(one, columns)
    beyond = extrapolated(one, columns) | extrapolated(one, more)
    within = quantum(one).get(size, 0.0)
    allowed = np.where(beyond, max(within, one.family.quantum_beyond), within)
    worst = int(np.argmin(kept + allowed))
    shape = {name: float(column[worst]) for name, column in columns.items()}
    assert kept[worst] >= 1 - allowed[worst] - ROUNDING, (one, size, float(by[worst]), shape)


def quantum(one: Shipped) -> Mapping[str, float]:
    return one.family.quantum_in.get(one.curve.dtype, one.family.quantum)


def extrapolated(one: Shipped, columns: Columns) -> NDArray[np.bool_]:
    return is_extrapolated(one.family, one.curve, columns)


@given(number=CURVES, places=PLACES, scale=st.floats(-4.0, 4.0))
@settings(max_examples=400, deadline=None)
def test_any_operator_has_a_time_above_its_bound(
    number: int, places: list[float], scale: float
) -> None:
    one = shipped_curves()[number]
    columns = maker(one.family.name)(np.asarray([places]))
    assert_possible(one, columns)
    # not whole, and out of proportion to what stays
    scaled = {n: c if n in COUNTS else c * 2.0**scale for n, c in columns.items()}
    assert_possible(one, scaled)


@given(number=CURVES, places=PLACES, by=FACTORS, which=st.integers(0, 7))
@settings(max_examples=1000, deadline=None)
def test_what_grows_is_no_faster(number: int, places: list[float], by: float, which: int) -> None:
    one = shipped_curves()[number]
    growing = sizes(one.family.name)
    size = growing[which % len(growing)]
    factor = 2.0 if size in ONLY_DOUBLED else by
    columns = maker(one.family.name)(np.asarray([places]))
    assert_no_faster(one, columns, size, np.asarray([factor]))


ROWS = 60
"""Operators of each curve on the sweep."""


def test_every_curve_keeps_the_laws_on_a_sweep() -> None:
    """All curves; sizes one larger, doubled, and many times as large."""
    generator = np.random.Generator(np.random.Philox(key=11))
    for one in shipped():
        columns = maker(one.family.name)(generator.random((ROWS, NUMBERS)))
        assert_possible(one, columns)
        for size in sizes(one.family.name):
            by = 2.0 if size in ONLY_DOUBLED else generator.choice([1.0, 2.0, 3.0, 32.0], ROWS)
            assert_no_faster(one, columns, size, np.broadcast_to(by, ROWS))


@given(places=PLACES, by=st.sampled_from([2.0, 4.0, 64.0]), number=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_whole_tiles_of_rows_are_no_faster(places: list[float], by: float, number: int) -> None:
    """Without partly filled tiles m has no larger quantum than n."""
    products = list(shipped(("gemm",)))
    one = products[number % len(products)]
    columns = maker("gemm")(np.asarray([places]))
    columns["m"] = np.ceil(columns["m"] / 128.0) * 128.0
    assert np.all(padding(columns["m"]) == 0.0)
    before, after = (seconds(one, c)[0] for c in (columns, grown(columns, "m", np.array([by]))))
    assert after >= before * (1 - quantum(one)["n"])


def test_products_seldom_fall() -> None:
    """The quantum is that of rare steps: as few fall by much as of those that were measured."""
    generator = np.random.Generator(np.random.Philox(key=3))
    most = {"m": 0.23, "n": 0.13, "k": 0.07}
    kept: dict[str, list[Array]] = {size: [] for size in most}
    for one in shipped(("gemm",)):
        columns = maker("gemm")(generator.random((500, NUMBERS)))
        before = seconds(one, columns)
        for size, found in kept.items():
            by = generator.choice([1.0, 1.25, 1.5, 2.0], 500)
            found.append(seconds(one, grown(columns, size, by)) / before)
    for size, found in kept.items():
        assert np.mean(np.concatenate(found) < 1.0 - most[size]) < 0.01


@given(places=PLACES, number=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_scalar_product_is_the_vector_s(places: list[float], number: int) -> None:
    products = list(shipped(("gemm",)))
    one = products[number % len(products)]
    columns = maker("gemm")(np.asarray([places]))
    m, n, k = (float(columns[name][0]) for name in "mnk")
    single = gemm.scalar_s(m, n, k, one.chip, one.curve.dtype, one.curve)
    assert single == pytest.approx(seconds(one, columns)[0], rel=1e-12)


PLAIN = ("bf16", "fp32")
CHIP = Chip(
    name="plain", vendor="none", peak_flop_per_s={"bf16": 1e13, "fp32": 1e12},
    memory_bandwidth_bytes_per_s=5e11, compute_units=64, l2_bytes=3e7, link_bytes_per_s=2e10,
)  # fmt: skip
PLAIN_SIZES = {
    "simple_gemm": ("m", "n", "k"),
    "simple_grouped_gemm": ("experts", "rows", "n", "k"),
    "simple_attention": ("sequences", "queries", "keys", "heads", "kv_heads", "head_dim"),
    "simple_elementwise": ("bytes", "items"),
    "simple_launch": ("items", "bytes"),
    "simple_collective": ("bytes", "ranks"),
}


@given(
    family=st.sampled_from(simple.FAMILIES), dtype=st.sampled_from(PLAIN), by=FACTORS,
    logs=st.lists(st.floats(0.0, 20.0), min_size=6, max_size=6), which=st.integers(0, 5),
    causal=st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_plain_families_keep_the_laws_where_their_fit_begins(
    family: Family, dtype: str, by: float, logs: list[float], which: int, *, causal: bool
) -> None:
    names = PLAIN_SIZES[family.name]
    columns = {name: np.asarray([2.0**log]) for name, log in zip(names, logs, strict=False)}
    columns |= {"causal": np.asarray([float(causal)])}
    if "ranks" in columns:
        columns["ranks"] += 1.0
    curve = Curve(
        family=family.name, dtype=dtype, variant="", parameters=family.start(CHIP, dtype),
        surface=None, rows=2, median_error=0.1, p90_error=0.2, source="made up",
    )  # fmt: skip
    before = predict_s(family, curve, columns, CHIP)[0]
    size = names[which % len(names)]
    after = predict_s(family, curve, {**columns, size: columns[size] * by}, CHIP)[0]
    assert np.isfinite(before) and after >= before * (1 - ROUNDING) > 0
    if family.bound_s is not None:
        assert before >= family.bound_s(columns, CHIP, dtype)[0] * (1 - ROUNDING)


LOADS = st.lists(st.integers(0, 4096), min_size=2, max_size=48).filter(any)
LAYERS = st.tuples(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 8))


def layer(
    choice: tuple[int, int, int], rows: list[int], like: list[int] | None = None
) -> tuple[Shipped, float]:
    """Return a MoE curve, and by it the seconds of experts with `rows`, sized as for `like`."""
    layers = list(shipped(("moe",)))
    one = layers[choice[0] % len(layers)]
    tokens = sum(like or rows)
    shape = moe.ExpertShape(
        hidden=1024 << choice[1], width=64 << choice[2], num_experts=512, tokens=tokens
    )
    return one, moe.layer_s([float(row) for row in rows], shape, one.chip, one.curve)


@given(choice=LAYERS, rows=LOADS, row=st.integers(1, 4096))
@settings(max_examples=100, deadline=None)
def test_an_active_expert_more_is_no_faster(
    choice: tuple[int, int, int], rows: list[int], row: int
) -> None:
    one, before = layer(choice, rows, like=rows)
    _, after = layer(choice, [*rows, row], like=rows)
    assert after >= before * (1 - one.family.quantum["experts"])


@given(choice=LAYERS, rows=LOADS, which=st.integers(0, 47))
@settings(max_examples=100, deadline=None)
def test_a_row_more_is_no_faster(choice: tuple[int, int, int], rows: list[int], which: int) -> None:
    one, before = layer(choice, rows, like=rows)
    more = list(rows)
    more[which % len(rows)] += 1
    assert layer(choice, more, like=rows)[1] >= before * (1 - one.family.quantum["rows"])


@given(choice=LAYERS, rows=LOADS, row=st.integers(2, 4096))
@settings(max_examples=100, deadline=None)
def test_a_row_that_moves_between_equals_saves_a_tile_at_most(
    choice: tuple[int, int, int], rows: list[int], row: int
) -> None:
    """Both keep rows: an expert that lost its last one would not be read at all."""
    one, before = layer(choice, [*rows, row, row])
    _, after = layer(choice, [*rows, row - 1, row + 1])
    assert after >= before * (1 - one.family.quantum["moved_row"])


def test_twice_the_rows_at_a_site_are_no_faster() -> None:
    for one in shipped(("moe",)):
        if one.curve.sites is None or one.family.sites is None:
            continue
        sites = np.asarray(one.curve.sites.places).T
        for rows in (1.0, 3.5, 6.0, 9.0, 13.0):
            small, large = ((*sites, np.full(len(sites[0]), rows + more)) for more in (0.0, 1.0))
            for name, samples_at in zip(_AT_SITES, one.family.sites.samples_at, strict=True):
                kept = seconds(one, dict(samples_at(large))) / seconds(one, dict(samples_at(small)))
                assert np.min(kept) >= 1 - one.family.quantum[name], (one, name, rows)


_AT_SITES = ("even_rows_at_site", "skewed_rows_at_site")


@given(choice=LAYERS, rows=LOADS, empty=st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_experts_without_rows_cost_nothing(
    choice: tuple[int, int, int], rows: list[int], empty: int
) -> None:
    with_empty = layer(choice, [*rows, *[0] * empty])[1]
    assert with_empty == pytest.approx(layer(choice, rows)[1], rel=1e-12)


FAR = np.linspace(0.0, 8.0, 65)
"""Octaves beyond the last knot."""


def beyond(one: Shipped, axis: int, sign: float) -> Columns:
    """Return operators that leave the range of the curve along one axis, the first at its edge."""
    surface = one.curve.surface
    assert surface is not None and one.family.samples_at is not None
    places = [np.full_like(FAR, (part.knots[0] + part.knots[-1]) / 2) for part in surface.axes]
    knots = surface.axes[axis].knots
    places[axis] = (knots[-1] if sign > 0 else knots[0]) + sign * FAR
    return dict(one.family.samples_at(tuple(places)))


def with_axes() -> Iterator[tuple[Shipped, int]]:
    for one in shipped():
        surface = one.curve.surface
        if surface is None or one.family.samples_at is None:
            continue
        if any(part.name == "padding" and len(part.knots) == 1 for part in surface.axes):
            continue  # measured on whole tiles only: any other row count lies outside
        for axis, part in enumerate(surface.axes):
            if not any(word in part.name for word in _NOT_FREE):
                yield one, axis


_NOT_FREE = ("padding", "window", "rows_per_expert", "ranks")
"""Axes on which operators cannot lie anywhere: shares, and whole numbers."""


def test_doubt_grows_steadily_beyond_what_was_measured() -> None:
    checked = set()
    for one, axis in with_axes():
        for sign in (1.0, -1.0):
            columns = beyond(one, axis, sign)
            octaves = octaves_beyond(one.family, one.curve, columns)
            doubt = uncertainty(one.family, one.curve, columns)
            assert doubt[0] == pytest.approx(1.48 * max(one.curve.median_error, 0.01))
            assert np.all(np.diff(doubt) >= 0)
            step = np.diff(FAR)
            assert np.all(doubt[1:] <= doubt[:-1] * np.exp2(step / 2) * (1 + 1e-9))
            told = is_extrapolated(one.family, one.curve, columns)
            assert np.all(told == (octaves > 0))
            if octaves[-1] > 0:
                assert doubt[-1] == pytest.approx(doubt[0] * 2 ** (octaves[-1] / 2))
                checked.add((one.curve.family, axis, sign))
    assert len(checked) > 40


def test_inside_the_knots_nothing_is_extrapolated() -> None:
    generator = np.random.Generator(np.random.Philox(key=5))
    for one, _ in with_axes():
        surface = one.curve.surface
        assert surface is not None and one.family.samples_at is not None
        places = [
            part.knots[0] + (part.knots[-1] - part.knots[0]) * generator.uniform(0.01, 0.99, 20)
            for part in surface.axes
        ]
        columns = one.family.samples_at(tuple(places))
        assert octaves_beyond(one.family, one.curve, columns) == pytest.approx(0.0, abs=1e-9)
