"""Law 7 for many layouts at once: no simulated step is shorter than its bound, memory is equal."""

from random import Random

import numpy as np
import pytest

from moesim.errors import MoesimError
from moesim.spec.load import load_scenario
from moesim.study.bounds import LayoutChoice, bounds
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate

V3 = (
    "deepseek-v3-2048xh800",
    ("cluster.devices=256", "parallel.ep=8", "parallel.pp=4", "training.global_batch=1024"),
)
LLAMA = ("llama-3.1-70b-256xh100", ("training.global_batch=256", "training.recompute=[]"))
MIXTRAL = ("mixtral-8x7b-64xh100", ())
KINDS: dict[str, tuple[tuple[str, tuple[str, ...]], tuple[str, ...]]] = {
    "dense": (LLAMA, ()),
    "dense, overlap": (
        LLAMA, ("training.overlap.grad_reduce=true", "training.overlap.param_gather=true"),
    ),
    "dense, gpipe": (LLAMA, ("parallel.vpp=1", "parallel.schedule=gpipe")),
    "moe": (V3, ()),
    "moe, shared beside": (V3, ("training.overlap.expert_exchange=shared_expert",)),
    "moe, batch": (V3, ("training.overlap.expert_exchange=batch", "parallel.vpp=2")),
    "moe, zb_h1": (V3, ("parallel.schedule=zb_h1",)),
    "moe, dualpipe": (V3, ("parallel.schedule=dualpipe",)),
    "moe, dualpipe beside": (
        V3,
        ("parallel.schedule=dualpipe", "training.overlap.expert_exchange=batch"),
    ),
    "moe, dualpipe_v": (V3, ("parallel.schedule=dualpipe_v", "parallel.vpp=2")),
    "moe, zb_h2": (V3, ("parallel.schedule=zb_h2",)),
    "moe, zb_h2 without a wait": (
        V3, ("parallel.schedule=zb_h2", "training.optimizer.post_validation=true"),
    ),
    "moe, zb_v": (V3, ("parallel.schedule=zb_v", "parallel.vpp=2")),
    "moe, zb_v without a wait": (
        V3,
        (
            "parallel.schedule=zb_v", "parallel.vpp=2", "training.optimizer.post_validation=true",
            "training.overlap.param_gather=true", "training.overlap.grad_reduce=true",
        ),
    ),
    "moe, heads spread": (V3, ("parallel.cp_comm=all_to_all",)),
    "moe, hybridep beside": (
        V3,
        (
            "parallel.schedule=dualpipe", "training.overlap.expert_exchange=batch",
            "parallel.dispatcher=hybridep",
        ),
    ),
    "moe, delayed weights": (
        V3,
        (
            "training.overlap.expert_exchange=batch", "parallel.vpp=2",
            "training.overlap.delay_weight_gradients=true",
        ),
    ),
    "moe, unequal devices": (
        V3,
        (
            "parallel.schedule=dualpipe", "training.overlap.expert_exchange=batch",
            "cluster.speed_spread=0.1",
        ),
    ),
    "dense, some slow": (LLAMA, ("cluster.slow={devices: 3, speed: 0.7}",)),
    "dense, other order": (LLAMA, ("parallel.rank_order=tp-cp-ep-pp-dp",)),
    "dense, ring": (LLAMA, ("parallel.cp_comm=ring", "training.sequence_length=16384")),
    "moe, other": (
        MIXTRAL,
        ("routing.capacity.factor=1.25", "routing.load.law=even", "routing.load.cv=[]"),
    ),
}  # fmt: skip


def _settings(choice: LayoutChoice) -> tuple[str, ...]:
    degrees = [
        f"parallel.{name}={getattr(choice, name)}" for name in ("tp", "pp", "vpp", "ep", "cp")
    ]
    again = choice.recompute or ()
    text = "full" if "full" in again else f"[{', '.join(again)}]"
    return (
        *degrees, f"parallel.etp={choice.etp}", f"training.micro_batch={choice.micro_batch}",
        f"training.recompute={text}",
    )  # fmt: skip


def _random(random: Random, is_moe: bool, rings: bool = False) -> LayoutChoice:
    return LayoutChoice(
        tp=random.choice([1, 2, 4]), pp=random.choice([1, 2, 4, 8]),
        vpp=random.choice([1, 1, 2, 3]), ep=random.choice([1, 2, 8]) if is_moe else 1, etp=1,
        cp=random.choice([1, 1, 2] if not rings else [2, 4]), micro_batch=random.choice([1, 2]),
        recompute=random.choice([(), ("layernorm",), ("layernorm", "mlp"), ("full",)]),
    )  # fmt: skip


def _simulated(name: str, settings: tuple[str, ...]) -> Outcome | None:
    try:
        return simulate(resolve(load_scenario(name, settings)))
    except MoesimError:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_is_shorter_and_memory_is_the_same(kind: str) -> None:
    (name, common), settings = KINDS[kind]
    common = (*common, *settings)
    random = Random(kind)
    layouts = [_random(random, kind.startswith("moe"), "ring" in kind) for _ in range(60)]
    found = bounds(load_scenario(name, common), layouts)
    possible = 0
    for number, choice in enumerate(layouts):
        if possible == 5:
            break
        outcome = _simulated(name, (*common, *_settings(choice)))
        assert (outcome is not None) == np.isfinite(found.step_s[number]), found.reasons[number]
        if outcome is None:
            assert found.reasons[number]
            continue
        possible += 1
        assert found.step_s[number] <= outcome.metrics.step_s * (1 + 1e-9), choice
        assert found.step_s[number] >= 0.6 * outcome.metrics.step_s, choice
        assert found.peak_bytes[number] == pytest.approx(outcome.peak_bytes, rel=1e-9), choice
        assert found.fits[number] == outcome.fits
    assert possible >= 2


@pytest.mark.parametrize("law", ["lognormal", "dirichlet"])
def test_uneven_loads_only_add_to_time_and_memory(law: str) -> None:
    name, common = V3
    load = (*common, f"routing.load.law={law}", "routing.load.cv=0.7")
    choice = LayoutChoice(pp=4, ep=32, etp=1, micro_batch=1, recompute=("layernorm",))
    found = bounds(load_scenario(name, load), [choice])
    outcome = _simulated(name, (*load, *_settings(choice)))
    assert outcome is not None
    assert found.step_s[0] <= outcome.metrics.step_s
    assert found.peak_bytes[0] <= outcome.peak_bytes * (1 + 1e-9)


def test_equal_stages_give_the_closed_form() -> None:
    """Llama-3.1-70B without ends: p stages alike make (m + p - 1)(f + b) the bound.

    80 layers on 4 stages; embedding and logits lengthen the ends only, so the bound lies above the
    formula with the layers alone and below that with the slowest stage everywhere.
    """
    name, common = LLAMA
    settings = (*common, "parallel.vpp=1")
    choice = LayoutChoice(tp=4, pp=4, etp=4, micro_batch=1, recompute=())
    found = bounds(load_scenario(name, settings), [choice]).step_s[0]
    outcome = _simulated(name, (*settings, *_settings(choice)))
    assert outcome is not None
    m, p = outcome.run.micro_batches, 4
    both = [cost.forward[0].seconds + cost.backward[0].seconds for cost in outcome.stages]
    assert (m + p - 1) * min(both) <= found
    assert found <= (m + p - 1) * max(both) + 2 * (p - 1) * outcome.stages[0].send_s + max(
        cost.reduce_s + cost.update_s + cost.gather_s for cost in outcome.stages
    )


def test_what_the_bound_does_not_know_is_an_error() -> None:
    scenario = load_scenario(LLAMA[0], ("parallel.vpp=1", "parallel.pp=1", "parallel.fsdp=8"))
    with pytest.raises(MoesimError, match=r"parallel\.fsdp: is not known to the bound"):
        bounds(scenario, [LayoutChoice()])
