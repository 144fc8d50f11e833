from pathlib import Path

import pytest

from moesim.calibrate import session
from moesim.calibrate.bench import Effort, Timing
from moesim.calibrate.meter import Meter
from moesim.calibrate.samples import Kept, load, save
from moesim.calibrate.session import Wish, calibrate, drift_of, refuse_noise, samples_path
from moesim.calibrate.suite import Case
from moesim.errors import CalibrationError
from tests.unit.calibrate.made_up import samples, seconds, target


class PaperMeter:
    """Answers with the made-up device's physics; ends with Ctrl-C after some cases."""

    in_one_call = True

    def __init__(self, patience: int = 10**9, spread: float = 0.01) -> None:
        self.asked: list[Case] = []
        self.patience, self.spread = patience, spread

    def measure(self, case: Case, effort: Effort) -> Timing:
        assert effort.limit_s > 0
        self.asked.append(case)
        if len(self.asked) > self.patience:
            raise KeyboardInterrupt
        taken = seconds(case)
        return Timing(seconds=taken, host_s=taken, spread=self.spread, repeats=5)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *error: object) -> None:
        del error


def use(monkeypatch: pytest.MonkeyPatch, meter: PaperMeter) -> PaperMeter:
    monkeypatch.setattr(session, "find_target", lambda *wanted: target())
    monkeypatch.setattr(session, "open_meter", lambda on: meter)
    monkeypatch.setattr(session, "fit", lambda on, found: None)
    monkeypatch.setattr(session._Session, "_least_certain", lambda self, base, number: [])
    return meter


def test_the_grid_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, PaperMeter())
    heard: list[tuple[str, float, float]] = []
    done = calibrate(Wish(out=tmp_path), lambda *told: heard.append(told))
    assert done.measured == len(done.samples) == len({s.case.key for s in done.samples}) > 100
    assert len(heard) == done.measured
    assert all(0 <= spent <= budget == 120.0 for _, spent, budget in heard)
    assert len(load(samples_path(tmp_path, done.name), done.target.fingerprint).samples) > 100


def test_ctrl_c_keeps_what_was_measured_and_a_rerun_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, PaperMeter(patience=30))
    with pytest.raises(KeyboardInterrupt):
        calibrate(Wish(out=tmp_path))
    kept = load(samples_path(tmp_path, target().slug), target().fingerprint)
    assert 20 < len(kept.samples) <= 30
    meter = use(monkeypatch, PaperMeter())
    done = calibrate(Wish(out=tmp_path))
    assert done.measured == len(done.samples) - len(kept.samples)
    again = {one.key for one in meter.asked} & {s.case.key for s in kept.samples}
    assert len(again) <= 1  # the product that shows a drifting clock


def test_a_spent_budget_measures_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, PaperMeter())
    calibrate(Wish(out=tmp_path))
    meter = use(monkeypatch, PaperMeter())
    done = calibrate(Wish(out=tmp_path, budget_s=1.0))
    assert (done.measured, meter.asked) == (0, [])


def test_fresh_measures_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, PaperMeter())
    calibrate(Wish(out=tmp_path))
    meter = use(monkeypatch, PaperMeter())
    assert calibrate(Wish(out=tmp_path, fresh=True)).measured == len(meter.asked) - len(
        [one for one in meter.asked if one == meter.asked[0]][1:]
    )


def test_a_noisy_device_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, PaperMeter(spread=0.6))
    with pytest.raises(CalibrationError, match=r"--threads 1.*--accept-noise"):
        calibrate(Wish(out=tmp_path))
    use(monkeypatch, PaperMeter(spread=0.6))
    assert calibrate(Wish(out=tmp_path, accept_noise=True)).spread == pytest.approx(0.6)


def test_disturbed_samples_are_noise_and_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from moesim.calibrate.samples import Sample

    def disturbed(one: Sample) -> Sample:
        return replace(one, timing=replace(one.timing, disturbed=0.5))

    with pytest.raises(CalibrationError, match="in 100% of the samples"):
        refuse_noise([disturbed(one) for one in samples()], [])
    meter = use(monkeypatch, PaperMeter())
    first = disturbed(samples()[0])
    kept = Kept(samples=(first,))
    save(samples_path(tmp_path, target().slug), target().fingerprint, kept)
    done = calibrate(Wish(out=tmp_path))
    assert first.case in meter.asked
    assert not any(one.timing.disturbed for one in done.samples)


def test_a_drifting_clock_is_noise_too() -> None:
    assert drift_of([1.0, 9.0]) == 0.0
    assert drift_of([1.0, 1.0, 1.01, 1.0]) < 0.02
    with pytest.raises(CalibrationError, match="drifted by 50%"):
        refuse_noise(samples(), [1.0, 1.0, 1.0, 1.5, 1.5, 1.5])


def test_a_round_takes_what_is_least_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    from moesim.calibrate.grid import grid

    base = grid(target(), in_one_call=True)
    found = session._Session(target(), Kept(samples=tuple(samples())), 60.0, 0.0, None)
    chosen = found._least_certain(base, 1)
    known = {s.case.key for s in found.samples}
    assert len(chosen) > 20
    assert not known & {one.key for one in chosen}
    taken = [one.curve for one in chosen]
    assert max(map(taken.count, taken)) <= 3
