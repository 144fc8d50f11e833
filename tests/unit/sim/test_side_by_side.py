"""Passes on one compute and one network stream: spans by hand, and bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.cost.times import Part, Stream
from moesim.sim.training.side_by_side import side_by_side_s


def _pass(*parts: tuple[Stream, float]) -> list[Part]:
    return [Part(stream, stream, seconds) for stream, seconds in parts]


def test_one_pass_alone_overlaps_nothing() -> None:
    assert side_by_side_s([_pass(("compute", 2.0), ("scale-up", 3.0), ("compute", 1.0))]) == 6.0


def test_nothing_takes_no_time() -> None:
    assert side_by_side_s([]) == 0.0
    assert side_by_side_s([[], []]) == 0.0


def test_exchange_of_one_pass_hides_behind_the_products_of_the_other() -> None:
    """The longer one starts: its 4 s of products, then its exchange of 3 s beside 3 s of ours."""
    longer = _pass(("compute", 4.0), ("scale-up", 3.0), ("compute", 4.0))
    shorter = _pass(("compute", 3.0), ("scale-out", 3.0))
    assert side_by_side_s([shorter, longer]) == 11.0


def test_two_exchanges_wait_for_each_other() -> None:
    assert side_by_side_s([_pass(("scale-up", 2.0)), _pass(("scale-out", 3.0))]) == 5.0


_PARTS = st.lists(
    st.tuples(st.sampled_from(["compute", "scale-up", "scale-out"]), st.floats(0.0, 5.0)),
    max_size=8,
)


@given(st.lists(_PARTS, max_size=3))
def test_span_is_between_its_bounds(passes: list[list[tuple[Stream, float]]]) -> None:
    """At least each pass, and each stream; at most one after the other."""
    made = [_pass(*parts) for parts in passes]
    span = side_by_side_s(made)
    alone = [sum(seconds for _, seconds in parts) for parts in passes]
    compute = sum(s for parts in passes for stream, s in parts if stream == "compute")
    floor = max([*alone, compute, sum(alone) - compute], default=0.0)
    assert span >= floor - 1e-9
    assert span <= sum(alone) + 1e-9


def test_order_of_the_passes_changes_nothing() -> None:
    one = _pass(("compute", 1.0), ("scale-up", 2.5), ("compute", 0.5))
    other = _pass(("scale-up", 1.0), ("compute", 4.0), ("scale-up", 0.25))
    assert side_by_side_s([one, other]) == pytest.approx(side_by_side_s([other, one]))
