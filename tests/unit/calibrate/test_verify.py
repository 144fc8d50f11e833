import numpy as np
import pytest

from moesim.calibrate.bench import Timing
from moesim.calibrate.fit import Fitted, fit
from moesim.calibrate.ranks import collective_grid
from moesim.calibrate.verify.compare import Compared, Verification, as_rows, medians, misses
from moesim.calibrate.verify.memory import peak_bytes
from moesim.calibrate.verify.plan import Small, Trial, architecture, trials
from moesim.calibrate.verify.predict import (
    Predicted,
    Setting,
    dropped_share,
    phases,
    predict,
    shared_params,
)
from moesim.calibrate.verify.steps import Measured
from moesim.model.parameters import total_params
from tests.unit.calibrate.made_up import samples, target

DENSE = Small(hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, width=128, vocab=256)
MOE = Small(
    hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, width=64, vocab=256, num_experts=4,
    top_k=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    found = samples() + samples(collective_grid(target(processes=2)))
    return fit(target(), found, folds=0)


def trial(model: Small = MOE, phase: str = "train", **changes: int) -> Trial:
    sizes = {"sequences": 2, "length": 64, **changes}
    return Trial(model=model, phase=phase, dtype="fp32", **sizes)


def test_the_twin_has_the_same_active_width() -> None:
    assert MOE.twin == DENSE
    assert trial().twin == trial(DENSE)
    assert trial(DENSE).twin is None


def test_every_moe_trial_comes_with_its_twin() -> None:
    wanted = trials(target())
    assert len(wanted) == len(set(wanted))
    assert all(one.twin in wanted for one in wanted if one.model.num_experts)
    assert {one.phase for one in wanted} == {"train", "prefill", "decode"}
    assert any(one.model.capacity_factor for one in wanted)
    assert len({(one.model.num_experts, one.model.top_k) for one in wanted}) > 4


def test_experts_divide_over_ranks_and_decode_stays_on_one() -> None:
    wanted = trials(target(processes=2))
    assert all(one.model.num_experts % 2 == 0 and one.phase != "decode" for one in wanted)


@pytest.mark.parametrize("model", [DENSE, MOE], ids=["dense", "moe"])
def test_parameters_are_those_of_the_architecture(model: Small) -> None:
    from moesim.calibrate.verify.predict import own_params

    ours = shared_params(model) + own_params(model, 1)
    assert ours == total_params(architecture(model))


@pytest.mark.parametrize("phase", ["train", "prefill", "decode"])
@pytest.mark.parametrize("model", [DENSE, MOE], ids=["dense", "moe"])
def test_every_operator_has_a_curve(fitted: Fitted, model: Small, phase: str) -> None:
    found = predict(fitted, trial(model, phase), target(), in_one_call=True)
    assert found.seconds > 0
    assert found.seconds == pytest.approx(sum(found.by_piece.values()))
    assert any("decode" in name for name in found.by_piece) == (phase == "decode")
    assert any("grad" in name for name in found.by_piece) == (phase == "train")
    assert any("grouped" in name for name in found.by_piece) == (model is MOE)


def test_training_takes_longer_than_a_forward_pass_and_more_layers_longer(fitted: Fitted) -> None:
    def seconds(one: Trial) -> float:
        return predict(fitted, one, target(), in_one_call=True).seconds

    assert seconds(trial()) > 2 * seconds(trial(phase="prefill"))
    assert seconds(trial(length=128)) > seconds(trial())


def test_a_loop_multiplies_weight_gradients_one_by_one(fitted: Fitted) -> None:
    setting = Setting(trial=trial(), ranks=1, in_one_call=False, dropped=0.0)
    cases = [one for phase in phases(setting, target()) for one in phase]
    assert {one.variant for one in cases if one.operator == "grouped_gemm"} == {"loop"}
    together = Setting(trial=trial(), ranks=1, in_one_call=True, dropped=0.0)
    more = [one for phase in phases(together, target()) for one in phase]
    assert len(cases) > len(more)


def test_two_ranks_exchange_rows_and_sum_gradients(fitted: Fitted) -> None:
    found = predict(fitted, trial(), target(processes=2), in_one_call=True)
    assert found.by_piece["collective all_to_all"] > 0
    assert found.by_piece["collective all_reduce"] > 0
    alone = predict(fitted, trial(), target(), in_one_call=True)
    assert not any("collective" in name for name in alone.by_piece)


def test_on_a_gpu_a_phase_lasts_as_long_as_the_host_needs(fitted: Fitted) -> None:
    from dataclasses import replace

    slow = {(operator, variant): 1.0 for operator, _, variant in fitted.curves}
    held = predict(replace(fitted, host_s=slow), trial(), target(), in_one_call=True)
    assert held.seconds > 50


def test_drops_follow_the_capacity() -> None:
    from dataclasses import replace

    assert dropped_share(trial()) == 0.0
    tight, loose = (trial(replace(MOE, capacity_factor=factor)) for factor in (1.0, 4.0))
    assert 0 < dropped_share(tight) < 0.3
    assert dropped_share(loose) == 0.0


def test_memory_grows_with_experts_and_holds_states_in_training() -> None:
    assert peak_bytes(trial(), target()) > peak_bytes(trial(DENSE), target())
    weights = 4 * (shared_params(DENSE))
    assert peak_bytes(trial(DENSE), target()) > 4 * weights
    assert peak_bytes(trial(DENSE, "decode"), target()) > weights


def compared(one: Trial, measured_s: float, predicted_s: float, disturbed: float = 0.0) -> Compared:
    taken = Timing(
        seconds=measured_s, host_s=measured_s, spread=0.0, repeats=5, disturbed=disturbed
    )
    return Compared(
        trial=one,
        measured=Measured(timing=taken, memory_bytes=None, dropped_fraction=0.0),
        predicted=Predicted(seconds=predicted_s, by_piece={}, dropped_fraction=0.0),
        predicted_memory_bytes=None,
    )


def test_medians_and_misses() -> None:
    found = Verification((compared(trial(DENSE), 1.0, 1.1), compared(trial(), 2.0, 1.0)))
    middle = {name: one["median"] for name, one in medians(found).items()}
    assert middle == pytest.approx(
        {"dense step": 0.1, "moe step": 0.5, "moe over dense": 1 - 1 / 2.2}
    )
    assert [line.split(":")[0] for line in misses(found)] == ["moe step", "moe over dense"]
    rows = as_rows(found)
    assert rows[1]["over_dense"] == 2.0
    assert rows[0]["over_dense"] is None
    assert rows[0]["tokens_per_s"] == 128.0
    assert np.isfinite(rows[1]["error"])


def test_gpus_have_tighter_targets() -> None:
    found = Verification((compared(trial(DENSE), 1.0, 1.15),), gpu=True)
    assert misses(found) == ["dense step: median error 15.0%, target 12%"]


def test_disturbed_trials_do_not_count() -> None:
    quiet, busy = compared(trial(DENSE), 1.0, 1.0), compared(trial(), 9.0, 1.0, 0.4)
    other = compared(trial(phase="decode"), 1.0, 1.0)
    found = Verification((quiet, busy, other))
    assert set(medians(found)) == {"dense step", "decode"}
    assert misses(found) == []
    (line,) = misses(Verification((busy,)))
    assert "nothing can be said" in line
