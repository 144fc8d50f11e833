"""Published constants of routers, typed as published: second experts, losses, jitter."""

import numpy as np
import pytest

from moesim.moe.choices import Choices, assignments_per_token
from moesim.moe.gating import losses
from moesim.moe.gating.gate import Gate, SecondPolicy
from moesim.moe.gating.gshard import gshard_top2
from moesim.moe.gating.second import chance
from moesim.moe.keeping import keep


def _chance(policy: SecondPolicy, *second: float) -> list[float]:
    gate = Gate(experts=8, top_k=2, second_policy=policy)
    return [float(found) for found in chance(gate, np.array(second))]


def test_second_expert_of_gshard() -> None:
    """Algorithm 1: sent if 2 g2 > U(0, 1), g1 + g2 = 1; its counter advances even if not."""
    assert _chance("random_gshard", 0.0, 0.12, 0.5) == pytest.approx([0.0, 0.24, 1.0])
    choices = Choices(np.array([[0, 1], [2, 1]]), np.full((2, 2), 0.5))
    declined = np.array([[False, True], [False, False]])
    kept = keep(choices, 1, by_choice=True, declined=declined)
    assert kept.tolist() == [[True, False], [True, False]]  # the slot of expert 1 is gone


def test_second_expert_of_mesh_tensorflow() -> None:
    """min(1, g2 / 0.2): sent for certain from a fifth on."""
    assert _chance("random_mtf", 0.0, 0.05, 0.12, 0.2, 0.5) == pytest.approx([0, 0.25, 0.6, 1, 1])
    assert Gate(experts=2).threshold == 0.2


def test_second_expert_of_fairseq() -> None:
    """2 g2 > U with g2 not normalised, unless told to; who is not sent takes no slot."""
    even = np.full(8, 1 / 8)

    def used(normalise: bool) -> float:
        gate = Gate(experts=8, top_k=2, second_policy="random_gshard", normalise=normalise)
        found = gshard_top2(gate, even, 20_000, np.random.default_rng(1))
        assert ((found.experts[:, 1] < 0) == (assignments_per_token(found) == 1)).all()
        return float(assignments_per_token(found).mean())

    assert 1.0 < used(normalise=False) < used(normalise=True) < 2.0
    freed = Choices(np.array([[0, -1], [2, 1]]), np.full((2, 2), 0.5))
    assert keep(freed, 1, by_choice=True).tolist() == [[True, False], [True, True]]


def test_loss_of_switch() -> None:
    """alpha N sum f_i P_i with alpha 1e-2: 0.01 for an even router, 0.01 N for a collapsed one."""
    even, all_to_one = np.full(4, 0.25), np.array([1.0, 0.0, 0.0, 0.0])
    assert 1e-2 * losses.balance(even, even) == pytest.approx(0.01)
    assert 1e-2 * losses.balance(all_to_one, all_to_one) == pytest.approx(0.04)


def test_z_loss_of_st_moe() -> None:
    """Mean over tokens of (logsumexp of logits)^2: (ln 4)^2 and (1 + ln 2)^2 here."""
    logits = np.array([[0.0, np.log(3.0)], [1.0, 1.0]])
    assert losses.router_z(logits) == pytest.approx((np.log(4) ** 2 + (1 + np.log(2)) ** 2) / 2)
