"""How much of a ring of keys and values attention hides, by hand."""

import pytest

from moesim.cost.ring import beside_attention
from moesim.cost.times import Part


def _seconds(ring_s: float, attention_s: float, rate: float) -> float:
    parts = [
        Part("scale-out", "context parallel", ring_s),
        Part("compute", "attention", attention_s),
        Part("compute", "experts", 5.0),
    ]
    return sum(part.seconds for part in beside_attention(parts, 4, rate))


def test_a_short_ring_is_hidden() -> None:
    # three of attention's four turns, 6 s, run beside 3 s of sending
    assert _seconds(3.0, 8.0, 1.0) == pytest.approx(8 + 5)


def test_a_long_ring_sticks_out() -> None:
    # 6 s of 10 are hidden
    assert _seconds(10.0, 8.0, 1.0) == pytest.approx(8 + 5 + 4)


def test_a_slowed_ring_hides_less() -> None:
    # at 0.6 of its rate 6 s of attention hide 3.6 s of sending
    assert _seconds(10.0, 8.0, 0.6) == pytest.approx(8 + 5 + 6.4)


def test_nothing_to_hide_behind() -> None:
    parts = [Part("scale-out", "context parallel", 2.0)]
    assert beside_attention(parts, 2, 1.0) == parts
