"""Exchanges beside compute: by hand, and never outside what is possible."""

from dataclasses import replace
from random import Random

import pytest

from moesim.cost.exchange_overlap import beside_each_other, beside_shared, together_s
from moesim.cost.times import Part, PassCost, pass_cost
from moesim.cost.two_streams import Interference

SLOWER = Interference(rate=0.5, taken=0.25)
PERFECT = Interference(rate=1.0, taken=0.0)


def test_two_at_once_by_hand() -> None:
    # compute at 3/4, exchange at 1/2 of its rate: 3 s and 2 s both end after 4 s
    assert together_s(3, 2, SLOWER) == pytest.approx(4)
    # of 6 s compute 3 s are done when the exchange ends: 4 + 3
    assert together_s(6, 2, SLOWER) == pytest.approx(7)
    # of 5 s exchange 2 s are done when compute ends: 4 + 3
    assert together_s(3, 5, SLOWER) == pytest.approx(7)
    # where each slows the other more than it gains they follow each other
    assert together_s(3, 5, Interference(rate=0.1, taken=0.5)) == pytest.approx(8)


def _passes(exchange_s: float) -> tuple[PassCost, PassCost]:
    forward = [("attention", 4.0), ("dispatch", exchange_s), ("experts", 3.0),
               ("combine", exchange_s), ("norms", 1.0)]  # fmt: skip
    backward = [("norms", 1.0), ("combine", exchange_s), ("experts", 6.0),
                ("dispatch", exchange_s), ("attention", 8.0)]  # fmt: skip
    one, two = ([Part("scale-out" if n in {"dispatch", "combine"} else "compute", n, s)
                 for n, s in parts] for parts in (forward, backward))  # fmt: skip
    return pass_cost(one, 1), pass_cost(two, 1)


def test_turns_by_hand() -> None:
    """Norms back 1, then attention | combine, experts back | dispatch, experts | dispatch back,
    attention back | combine, norms 1."""
    # 2 s hide behind each of 4, 6, 3 and 8 s
    assert beside_each_other(*_passes(2.0), PERFECT).seconds == pytest.approx(1 + 21 + 1)
    # 5 s are longer than attention and experts forward: 5 + 6 + 5 + 8
    assert beside_each_other(*_passes(5.0), PERFECT).seconds == pytest.approx(1 + 24 + 1)


def test_delayed_gradients_of_weights_by_hand() -> None:
    """Dispatch back, 5 s, waits for 2 s of experts back instead of 6: it starts 4 s earlier."""
    forward = pass_cost([Part("compute", "attention", 1.0)], 1)
    made = [Part("scale-out", "combine", 1.0), Part("compute", "experts", 2.0),
            Part("compute", "experts", 4.0, late=True), Part("scale-out", "dispatch", 5.0),
            Part("compute", "attention", 1.0)]  # fmt: skip
    delayed = pass_cost(made, 1)
    in_order = pass_cost([replace(part, late=False) for part in made], 1)
    # attention | combine 1, experts 6, dispatch 5, attention 1
    assert beside_each_other(forward, in_order, PERFECT).seconds == pytest.approx(1 + 6 + 5 + 1)
    # attention | combine 1, experts 2, dispatch | experts 5, attention 1
    assert beside_each_other(forward, delayed, PERFECT).seconds == pytest.approx(1 + 2 + 5 + 1)


def test_the_host_launches_both_passes() -> None:
    """What hides an exchange does not hide launches: 30 s of them, in place of 23 s of work."""
    passes = [
        pass_cost([*one.parts, Part("compute", "host launches", 2.0)], 1, host_s=15.0)
        for one in _passes(2.0)
    ]
    found = beside_each_other(passes[0], passes[1], PERFECT)
    assert found.seconds == pytest.approx(30)
    assert found.host_s == 30
    assert sum(p.seconds for p in found.parts if p.name == "host launches") == pytest.approx(7)


def test_shared_experts_by_hand() -> None:
    parts = [Part("scale-up", "dispatch", 1.0), Part("compute", "experts", 5.0),
             Part("scale-up", "combine", 3.0), Part("compute", "shared experts", 3.0)]  # fmt: skip
    # 3 s of compute and 4 s of exchange, each slower: 4 s for both, 2 s of exchange left
    assert pass_cost(beside_shared(parts, SLOWER), 1).seconds == pytest.approx(5 + 4 + 2)
    assert beside_shared(parts[:3], SLOWER) == parts[:3]


def test_never_slower_than_in_turn_and_never_faster_than_either() -> None:
    random = Random(7)
    for _ in range(500):
        cost = Interference(rate=random.uniform(0.05, 1), taken=random.uniform(0, 0.9))
        one, two = (
            pass_cost(
                [
                    Part("scale-out", random.choice(["dispatch", "combine"]), random.uniform(0, 3))
                    if random.random() < 0.4
                    else Part("compute", random.choice("abc"), random.uniform(0, 3))
                    for _ in range(random.randint(0, 12))
                ],
                1,
            )
            for _ in range(2)
        )
        found_s = beside_each_other(one, two, cost).seconds
        compute_s, exchange_s = (
            sum(p.seconds for p in (*one.parts, *two.parts) if (p.stream == "compute") is wanted)
            for wanted in (True, False)
        )
        assert found_s <= (compute_s + exchange_s) * (1 + 1e-9)
        assert found_s >= max(compute_s, exchange_s) * (1 - 1e-9)
