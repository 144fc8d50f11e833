"""Who is dropped, token by token: against closed forms along the group, counts, and by hand."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.moe import drops
from moesim.moe.assignment import Router, draw
from moesim.moe.capacity import CapacityRule
from moesim.moe.gating.gate import Gate
from moesim.moe.likely_drops import likely_drops
from moesim.moe.loads import LoadLaw
from moesim.moe.token_drops import Placed, Queue, lost, place, queue

ALL = np.ones(3, dtype=np.bool_)


def _router(**changes: object) -> Router:
    base: dict[str, object] = {
        "tokens": 48, "group_tokens": 48, "experts": 8, "top_k": 2, "ranks": 4,
        "law": LoadLaw(law="uniform"),
    }  # fmt: skip
    return Router(**{**base, **changes})  # type: ignore[arg-type]


def _queue(router: Router, sequence: int = 48) -> Queue:
    found = queue(router, sequence)
    assert found is not None
    return found


@pytest.mark.parametrize("formula", ["megablocks", "gshard"])
@pytest.mark.parametrize("policy", ["position", "random", "probs"])
def test_drops_along_the_group_agree_with_the_closed_form(policy: str, formula: str) -> None:
    """megablocks takes the choices token by token, gshard first choices before second ones."""
    rule = CapacityRule(formula=formula, mode="absolute", absolute=10, policy=policy)
    here, draws = _queue(_router(capacity=rule)), 4000
    gone = np.mean(
        [one.wanted & ~one.kept for one in place(here, np.full(8, 1 / 8), draws, _generator())],
        axis=0,
    )
    likely = likely_drops(here)
    assert likely is not None
    _within(gone.mean(axis=1), likely.by_token, draws)  # two choices: less scatter than one
    assert likely.by_token.mean() == pytest.approx(drops.uniform(48, 8, 2, 10), abs=1e-5)
    if policy == "probs" and formula == "megablocks":
        assert likely.by_choice is None  # large weights go first, whose choice is which matters
    else:
        assert likely.by_choice is not None
        _within(gone.mean(axis=0), likely.by_choice.mean(axis=0), draws * 8)


def _within(found: np.ndarray, expected: np.ndarray, draws: int) -> None:
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) / draws)
    assert np.all(np.abs(found - expected) < 4 * error)


def _generator() -> np.random.Generator:
    return np.random.default_rng(7)


def test_one_skewed_choice_against_the_closed_form() -> None:
    """Each group has Dirichlet shares of its own."""
    law, rule = LoadLaw(law="dirichlet", cv=0.7), CapacityRule(mode="absolute", absolute=10)
    router = _router(top_k=1, law=law, capacity=replace(rule, policy="position"))
    here, generator = _queue(router), _generator()
    a = drops.concentration_for(8, 0.7)
    gone = [
        ~place(here, generator.dirichlet(np.full(8, a)), 1, generator)[0].kept[:, 0]
        for _ in range(4000)
    ]
    likely = likely_drops(here)
    assert likely is not None
    # tokens of one group share its draw of the shares, so their errors are not independent
    _within(np.mean(gone, axis=0), likely.by_token, 4000)


@pytest.mark.parametrize(
    "changes",
    [
        {"law": LoadLaw(law="lognormal", cv=1.0)},
        {"law": LoadLaw(law="lognormal", cv=1.0), "phi": 3.0},
        {"law": LoadLaw(law="lognormal", cv=1.0), "capacity": CapacityRule(formula="deepseek_v2")},
        {"law": LoadLaw(law="trace"), "shares": tuple(np.arange(1, 17) / 136)},
        {"law": LoadLaw()},
    ],
    ids=["lognormal", "burst", "device budget", "trace", "even"],
)
def test_tokens_drop_what_counts_drop(changes: dict[str, object]) -> None:
    """In one layer, whose shares are given, the mean over many groups is the same."""
    base = {"group_tokens": 512, "tokens": 2**16, "experts": 16, "capacity": CapacityRule()}
    router = _router(**{**base, **changes})
    drawn = draw(router, np.random.default_rng(3))
    by_counts = 1 - drawn.kept.sum() / drawn.routed.sum()
    placed = place(_queue(router, 512), drawn.shares, 100, _generator())
    found = lost(placed, np.ones(512, dtype=np.bool_))
    assert found.dropped / found.wanted == pytest.approx(by_counts, abs=0.012)


def test_choices_lost_by_hand() -> None:
    """Three tokens with two choices; the second token has only one, which is dropped."""
    wanted = np.array([[True, True], [True, False], [True, True]])
    kept = np.array([[True, False], [False, False], [True, True]])
    weights = np.array([[0.6, 0.4], [1.0, 0.0], [0.5, 0.5]])
    placed = [Placed(wanted=wanted, kept=kept, weights=weights)]
    found = lost(placed, ALL)
    assert (found.wanted, found.dropped) == (5, 2)
    assert found.weight_fraction == pytest.approx(1.4 / 3)
    assert found.residual_fraction == pytest.approx(1 / 3)
    first, second = (lost(placed, ALL, choice) for choice in (0, 1))
    assert (first.wanted, first.dropped, second.wanted, second.dropped) == (3, 1, 2, 1)
    assert lost(placed, ALL, 2).wanted == 0
    assert lost(placed, np.array([True, False, False])).residual_fraction == 0


def test_padding_is_the_end_of_each_sequence() -> None:
    rule = CapacityRule(formula="switch", padding_fraction=0.25)
    found = _queue(_router(group_tokens=16, capacity=rule), 8).padding()
    assert found.tolist() == ([False] * 6 + [True] * 2) * 2
    # a group that is part of a sequence has its padding at its own end
    part = _queue(_router(group_tokens=8, capacity=rule), 100).padding()
    assert part.tolist() == [False] * 6 + [True] * 2


def test_padding_that_is_routed_stands_in_the_way_of_nobody_before_it() -> None:
    """One expert, eight tokens of which the last four are padding, four slots."""
    rule = CapacityRule(
        formula="gshard", mode="absolute", absolute=4, padding_fraction=0.5, policy="position"
    )
    router = _router(group_tokens=8, experts=1, top_k=1, ranks=1, capacity=rule)
    (routed,) = place(_queue(router, 8), np.ones(1), 1, _generator())
    assert routed.kept[:, 0].tolist() == [True] * 4 + [False] * 4
    alone = replace(rule, padding_tokens_occupy_capacity=False, absolute=2)
    (left,) = place(_queue(replace(router, capacity=alone), 8), np.ones(1), 1, _generator())
    assert left.kept[:, 0].tolist() == [True] * 2 + [False] * 6


def test_spared_sequences_of_a_device_budget_lose_nothing() -> None:
    rule = CapacityRule(formula="deepseek_v2", factor=0.01, spared_fraction=0.5)
    router = _router(group_tokens=40, capacity=rule)
    (found,) = place(_queue(router, 10), np.full(8, 1 / 8), 1, _generator())
    whole = found.kept.reshape(4, -1).all(axis=1)
    assert whole.sum() == 2


def test_a_group_too_large_is_stood_for_by_one_of_the_same_shape() -> None:
    router = _router(group_tokens=2**22, tokens=2**22, experts=64, capacity=CapacityRule())
    found = _queue(router, 2**20)
    assert (found.tokens, found.slots, found.sequences) == (2**16, 2**11, 4.0)
    # 2,048 experts with two rows each are not shrunk: of 1 row the tail is another
    few = _router(group_tokens=4096, experts=2048, top_k=1, capacity=CapacityRule())
    assert _queue(few, 4096).tokens == 4096
    assert queue(_router(), 48) is None


def test_gate_and_its_policy_are_those_of_the_scenario() -> None:
    gate = Gate(experts=8, top_k=2, second_policy="none")
    router = _router(rule="gshard_top2", gate=gate, capacity=CapacityRule())
    (found,) = place(_queue(router), np.full(8, 1 / 8), 1, _generator())
    assert not found.wanted[:, 1].any()
    assert likely_drops(_queue(router)) is None
