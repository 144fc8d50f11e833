"""Graphs and guesses: closed forms, hand calculation, and what is refused."""

from fractions import Fraction
from pathlib import Path

import pytest

from moesim.cost.iteration import step_ps
from moesim.cost.serving.drafts import times_of
from moesim.cost.serving.launches import padded
from moesim.cost.serving.table import HostTime, iteration_times
from moesim.errors import ScenarioError
from moesim.spec.engines.graph_sizes import captured
from moesim.study.serving.resolve import Serving
from moesim.study.serving.simulate import simulate
from tests.unit.study.serving.served import served

V3 = "formats: {weights: fp8_block128}\nparallel: {tp: 8, ep: 8}"


def guessing(folder: Path, words: str, model: str = "deepseek-v3", more: str = V3) -> Serving:
    """Return a run with these words on guesses."""
    keys = f"{more}\nengine: {{speculative: {{{words}}}}}"
    return served(folder, model, devices=8, cluster="hgx-h200", serving=keys)


@pytest.mark.parametrize(("k", "a"), [(1, "1/2"), (3, "4/5"), (5, "7/10")])
def test_expected_tokens_are_leviathan_s(tmp_path: Path, k: int, a: str) -> None:
    """(1 - a^(k+1)) / (1 - a), arXiv 2211.17192, equation 1."""
    share = Fraction(a)
    words = f"draft_tokens: {k}, acceptance: {float(share)}, mtp: true"
    rules = guessing(tmp_path, words).rules
    expected = (1 - share ** (k + 1)) / (1 - share)
    assert Fraction(*rules.tokens_per_step) == pytest.approx(expected, abs=1e-6)
    assert rules.checked_tokens == k + 1


def test_acceptance_by_place_adds_up(tmp_path: Path) -> None:
    """1 + 0.8 + 0.5."""
    words = "draft_tokens: 2, acceptance: [0.8, 0.5], mtp: true"
    assert guessing(tmp_path, words).rules.tokens_per_step == (23, 10)


def test_a_module_reads_the_cache_of_one_layer_per_guess(tmp_path: Path) -> None:
    """All 61 layers have the same attention: two guesses make it 63."""
    on = guessing(tmp_path, "draft_tokens: 2, acceptance: 0.8, mtp: true").deployment
    whole = times_of(on, HostTime()).attention(8)
    plain = iteration_times(on, HostTime()).attention(8)
    ratio = step_ps(whole, 16_384) / step_ps(plain, 16_384)
    assert ratio == pytest.approx(63 / 61, rel=1e-4)


def test_guesses_that_never_hold_only_cost(tmp_path: Path) -> None:
    """Acceptance 0 is slower than no guesses, acceptance 1 faster: two tokens a step."""
    never, always = (
        simulate(guessing(tmp_path, f"draft_tokens: 1, acceptance: {a}, mtp: true")).metrics
        for a in ("0.0", "1.0")
    )
    plain = simulate(
        served(tmp_path, "deepseek-v3", devices=8, cluster="hgx-h200", serving=V3)
    ).metrics
    assert always.tpot_s.p50 < plain.tpot_s.p50 < never.tpot_s.p50
    assert never.tpot_s.p50 / always.tpot_s.p50 == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("draft_tokens: 1, acceptance: 0.8", "one of mtp"),
        ("draft_tokens: 1, acceptance: 0.8, mtp: true, draft_model: mistral-7b", "one of mtp"),
        ("draft_tokens: 2, acceptance: [0.8], mtp: true", "needs 2 shares"),
        ("draft_tokens: 2, acceptance: [0.5, 0.8], mtp: true", "cannot rise"),
    ],
)
def test_senseless_guesses_are_refused(tmp_path: Path, words: str, said: str) -> None:
    """With what is allowed."""
    with pytest.raises(ScenarioError, match=said):
        guessing(tmp_path, words)


def test_a_module_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    """Mixtral predicts one token."""
    with pytest.raises(ScenarioError, match="no module for multi-token"):
        guessing(
            tmp_path, "draft_tokens: 1, acceptance: 0.8, mtp: true", "mixtral-8x7b",
            "parallel: {tp: 8}",
        )  # fmt: skip


def test_a_batch_runs_in_the_next_larger_graph(tmp_path: Path) -> None:
    """9 sequences cost what 16 do but for their logits; 17 have no graph."""
    assert [padded(n, (1, 2, 4, 8, 16)) for n in (1, 3, 9, 16, 17)] == [1, 4, 16, 16, 17]
    keys = "engine: {graph_sizes: [1, 2, 4, 8, 16]}"
    times = iteration_times(served(tmp_path, "llama-2-7b", serving=keys).deployment, HostTime())
    assert times.batch_s(9, 9, 9) == times.batch_s(16, 9, 16)
    assert times.batch_s(17, 17, 17) >= 32 * 10e-6


def test_without_graphs_the_host_sets_the_pace(tmp_path: Path) -> None:
    """Llama-2-7B's step is at least 32 layers of 10 kernels of 10 us."""
    plain, eager = (
        iteration_times(served(tmp_path, "llama-2-7b", serving=keys).deployment, HostTime())
        for keys in ("", "engine: {graphs: false}")
    )
    assert eager.batch_s(1, 1, 1) == max(plain.batch_s(1, 1, 1), 32 * 10 * 10e-6)


def test_graphs_of_vllm() -> None:
    """Up to the largest, itself included."""
    assert captured("vllm", 0) == ()
    assert captured("vllm", 10) == (1, 2, 4, 8, 10)
    sizes = captured("vllm", 512)
    assert (sizes[-1], len(sizes)) == (512, 3 + 32 + 16)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("graph_sizes: [4, 2]", "must rise"),
        ("graph_sizes: []", "must rise"),
        ("graphs: false, graph_sizes: [1, 2]", "no effect"),
    ],
)
def test_senseless_graphs_are_refused(tmp_path: Path, words: str, said: str) -> None:
    """With what is allowed."""
    with pytest.raises(ScenarioError, match=said):
        served(tmp_path, "llama-2-7b", serving=f"engine: {{{words}}}")
