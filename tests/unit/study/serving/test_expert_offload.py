"""Experts outside device memory: by hand, against published rates, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from moesim.cost.serving.deployment import Offload
from moesim.cost.serving.memory import weights
from moesim.cost.serving.offload import expert_bytes, missing_experts, offload_s
from moesim.errors import ScenarioError
from moesim.model.architecture import MoeFfn
from moesim.spec.yaml_text import read_yaml
from moesim.study.serving.resolve import Serving
from moesim.study.serving.simulate import simulate
from tests.shared_files import shared
from tests.unit.study.serving.served import served

ALONE = "workload: {arrivals: closed, in_flight: 1, requests: 2, prompt: 100, output: 50}"


def offloading(folder: Path, words: str, model: str = "mixtral-8x7b") -> Serving:
    """Return one L40S with these words on offload."""
    return served(
        folder, model, cluster="l40s-pcie-8", serving=f"{ALONE}\noffload: {{{words}}}"
    )  # fmt: skip


def test_what_a_token_fetches_by_hand(tmp_path: Path) -> None:
    """Mixtral: 2 of 8 experts of 3 x 4096 x 14336 x 2 bytes, 6 of 8 of them at 25 GB/s."""
    on = offloading(tmp_path, "resident_experts: 2, bandwidth: 25 GB/s").deployment
    layer = on.architecture.decoder[0].layer
    bare = np.zeros(1)
    found = offload_s(layer, np.ones(1), bare, on)
    assert found[0] == pytest.approx(2 * 6 / 8 * (3 * 4096 * 14336 * 2) / 25e9)


def test_fetching_ahead_hides_behind_a_layer(tmp_path: Path) -> None:
    """Of a fetch of 1 unit, half guessed, a layer of 0.2 hides 0.2 and one of 9 the half."""
    on = offloading(tmp_path, "resident_experts: 2, prefetch: 0.5").deployment
    layer, one = on.architecture.decoder[0].layer, np.ones(1)
    assert on.offload is not None
    fetch = offload_s(layer, one, one, replace(on, offload=replace(on.offload, prefetch=0.0)))
    assert offload_s(layer, one, 0.2 * fetch, on)[0] == pytest.approx(0.8 * fetch[0])
    assert offload_s(layer, one, 9.0 * fetch, on)[0] == pytest.approx(0.5 * fetch[0])


def test_a_host_computes_where_experts_lie(tmp_path: Path) -> None:
    """A token's 1.5 missing experts are read at 150 GB/s; two passes over the link are small."""
    words = "resident_experts: 2, compute: host, host_compute: 1 TFLOP/s, host_bandwidth: 150 GB/s"
    on = offloading(tmp_path, words).deployment
    found = offload_s(on.architecture.decoder[0].layer, np.ones(1), np.ones(1), on)
    size = 3 * 4096 * 14336 * 2
    passed = 4 * 1.5 * 4096 / 31e9
    assert found[0] == pytest.approx(1.5 * size / 150e9 + passed)


def test_a_cache_smaller_than_what_is_asked_for_drops_all_of_it() -> None:
    """A batch that asks for all 8: a fixed set of 4 serves half, the last used ones nothing."""
    ffn = MoeFfn(num_experts=8, top_k=2, expert_width=64)
    many = np.array([1000.0])
    laws: tuple[tuple[Literal["static", "lru"], float], ...] = (("static", 4.0), ("lru", 8.0))
    for cache, missing in laws:
        rule = Offload(resident_experts=4, cache=cache, link_bytes_per_s=1.0)
        assert missing_experts(many, ffn, rule)[0] == pytest.approx(missing)


def test_random_choices_hit_as_often_as_the_law_says() -> None:
    """Counted: one token after the other, uniform choices, a set that stays and one last used."""
    draw = np.random.default_rng(1)
    experts, top_k, resident, steps = 16, 2, 6, 20_000
    ffn = MoeFfn(num_experts=experts, top_k=top_k, expert_width=64)
    used: list[int] = list(range(resident))
    missed: dict[Literal["static", "lru"], int] = {"static": 0, "lru": 0}
    for _ in range(steps):
        asked = draw.permutation(experts)[:top_k].tolist()
        missed["static"] += sum(one >= resident for one in asked)
        missed["lru"] += sum(one not in used for one in asked)
        used = [*(one for one in used if one not in asked), *asked][-resident:]
    for cache, count in missed.items():
        rule = Offload(resident_experts=resident, cache=cache, link_bytes_per_s=1.0)
        law = missing_experts(np.ones(1), ffn, rule)[0]
        assert count / steps == pytest.approx(law, rel=0.05)


def test_what_is_offloaded_leaves_device_memory(tmp_path: Path) -> None:
    """2 of 8 experts of each of 32 layers stay."""
    on = offloading(tmp_path, "resident_experts: 2").deployment
    ffn = on.architecture.decoder[0].layer.ffn
    assert isinstance(ffn, MoeFfn)
    assert weights(on).experts == pytest.approx(32 * 2 * expert_bytes(ffn, on))


def test_faster_links_and_more_residents_are_never_slower(tmp_path: Path) -> None:
    """Law 9, on what a token takes."""
    slow, fast, more = (
        simulate(offloading(tmp_path, words)).metrics.tpot_s.p50
        for words in (
            "resident_experts: 1, bandwidth: 10 GB/s", "resident_experts: 1, bandwidth: 20 GB/s",
            "resident_experts: 3, bandwidth: 20 GB/s",
        )
    )  # fmt: skip
    assert slow > fast > more


def test_mixtral_on_a_card_of_24_gb_is_in_the_published_range() -> None:
    """MoE-Infinity's table for an A5000: the transfers alone, at PCIe 4's 31 GB/s datasheet rate.

    Weights beside the experts take 3.2 GB, so 20 GB hold 56 of 256 experts, 1.75 a layer. What
    must cross the link bounds every system from below, the best one within a factor of two.
    """
    path = shared("published/moe-semantics.yaml")
    rows = read_yaml(path.read_text(), str(path)).data["offload"][0]["rows"]
    published = [times[2] for times in rows.values() if times[2] is not None]
    size = 3 * 4096 * 14336 * 2
    ffn = MoeFfn(num_experts=8, top_k=2, expert_width=14336)
    rule = Offload(resident_experts=1, link_bytes_per_s=31e9)
    slowest = 32 * missing_experts(np.ones(1), ffn, rule)[0] * size / 31e9
    best = 32 * missing_experts(np.ones(1), ffn, replace(rule, resident_experts=2))[0] * size / 31e9
    assert 0.5 * min(published) < best < slowest < min(published)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("to: nvme, resident_experts: 2", "needs bandwidth"),
        ("resident_experts: 2, compute: host", "needs host_compute"),
        ("resident_experts: 2, host_compute: 1 TFLOP/s", "has no host_compute"),
        ("resident_experts: 8", "must be below the 8 experts"),
    ],
)
def test_senseless_offload_is_refused(tmp_path: Path, words: str, said: str) -> None:
    """With what is allowed."""
    with pytest.raises(ScenarioError, match=said):
        offloading(tmp_path, words)


def test_a_dense_model_has_nothing_to_offload(tmp_path: Path) -> None:
    """Experts alone are offloaded."""
    with pytest.raises(ScenarioError, match="no experts"):
        offloading(tmp_path, "resident_experts: 2", "llama-2-7b")
