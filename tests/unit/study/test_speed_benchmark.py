"""How fast steps and bounds are. Run by hand: pytest -s -m slow -p benchmark, with this file.

CPU seconds of this process, profiles read before; each figure is printed beside what is allowed.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from moesim.spec.load import load_scenario
from moesim.spec.scenario import Scenario
from moesim.study.bounds import LayoutChoice, bounds
from moesim.study.campaign import campaign
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate

V3 = "deepseek-v3-2048xh800"
DUALPIPE = ("parallel.schedule=dualpipe", "training.overlap.expert_exchange=batch")
SKEWED = (
    "cluster.devices=10240", "training.global_batch=76800", "routing.load.law=dirichlet",
    "routing.load.cv=0.5",
)  # fmt: skip
CALCULON_PER_S = 480
"""Layouts a second of Calculon, dense models only."""


def _cpu_s(work: Callable[[], object], rounds: int = 5) -> float:
    work()
    spent = []
    for _ in range(rounds):
        start_s = time.process_time()
        work()
        spent.append(time.process_time() - start_s)
    return min(spent)


def _told(what: str, found: float, allowed: float, unit: str) -> None:
    print(f"\n{what}: {found:.4g} {unit} (aim {allowed:.4g}, ratio {found / allowed:.3g})")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), DUALPIPE], ids=["1f1b", "dualpipe"])
def test_a_step_of_deepseek_v3_on_2048_devices(settings: tuple[str, ...]) -> None:
    run = resolve(load_scenario(V3, settings))
    found_s = _cpu_s(lambda: simulate(run))
    _told("DeepSeek-V3 step, 2,048 devices", found_s * 1e3, 50, "ms")
    assert found_s < 0.05


@pytest.mark.slow
def test_a_skewed_step_on_10240_devices() -> None:
    """Every layer draws its own load; the fullest rank holds the others up. Memory in a process."""
    run = resolve(load_scenario(V3, (*DUALPIPE, *SKEWED)))
    found_s = _cpu_s(lambda: simulate(run), 3)
    _told("DeepSeek-V3 step, 10,240 devices, skewed", found_s, 1, "s")
    assert found_s < 1
    code = (
        "import moesim; moesim.run(moesim.load_scenario("
        f"{V3!r}, {(*DUALPIPE, *SKEWED, 'baseline=[]')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    _told("its memory, reports not written", peak_mb, 500, "MB")
    assert peak_mb < 500


def _grid(is_moe: bool) -> list[LayoutChoice]:
    ranks = [1, 8, 16, 32, 64] if is_moe else [1]
    degrees = product([1, 2, 4, 8], [1, 2, 4, 8, 16], [1, 2, 4], ranks, [1, 2], [1, 2])
    again = [("layernorm",), ("layernorm", "mlp"), ("full",)]
    return [
        LayoutChoice(tp=tp, pp=pp, vpp=vpp, ep=ep, etp=1, cp=cp, micro_batch=size, recompute=names)
        for (tp, pp, vpp, ep, cp, size), names in product(degrees, again)
        if vpp == 1 or pp > 1
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [V3, "llama-3.1-70b-256xh100"])
def test_layouts_through_the_bound(name: str) -> None:
    """Only layouts that are possible count; those that are not are found out on the way."""
    scenario: Scenario = load_scenario(name)
    layouts = _grid("deepseek" in name)
    possible = np.isfinite(bounds(scenario, layouts).step_s).sum()
    per_s = possible / _cpu_s(lambda: bounds(scenario, layouts), 2)
    _told(f"layouts of {name}: {possible} of {len(layouts)}", per_s, 500, "a second")
    print(f"over Calculon's {CALCULON_PER_S}: {per_s / CALCULON_PER_S:.2f}")
    assert per_s > 500


@pytest.mark.slow
def test_a_campaign_of_three_months_with_20_seeds() -> None:
    run = resolve(load_scenario("campaign-deepseek-v3", ("campaign.seeds=20",)))
    outcome = simulate(run)
    found_s = _cpu_s(lambda: campaign(run, outcome, lambda done, total: None), 1)
    _told("campaign, 20 seeds", found_s, 30, "s")
    assert found_s < 30
