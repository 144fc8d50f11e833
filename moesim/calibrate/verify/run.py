"""Times all trials on the device and predicts each from the calibration."""

from collections.abc import Callable
from functools import partial

from moesim.calibrate.bench import Effort
from moesim.calibrate.meter import LocalMeter
from moesim.calibrate.ranks import Ranks
from moesim.calibrate.session import Calibration, Progress
from moesim.calibrate.verify.compare import Compared, Verification
from moesim.calibrate.verify.memory import peak_bytes
from moesim.calibrate.verify.plan import Trial, trials
from moesim.calibrate.verify.predict import predict
from moesim.calibrate.verify.steps import Measured, measure_trial

EFFORT = Effort(limit_s=1.2, batch_s=0.0, most=40, least=5)
"""Of one trial: every call is a batch of its own."""


ROUNDS = 4
"""How often a trial that other programs disturbed is measured at most."""


def verify(calibration: Calibration, progress: Progress | None = None) -> Verification:
    """Return every trial, measured and predicted."""
    target = calibration.target
    if target.processes > 1:
        with Ranks(target) as ranks:
            return _verify(calibration, ranks.in_one_call, partial(_slowest, ranks), progress)
    meter = LocalMeter(target)
    return _verify(calibration, meter.in_one_call, partial(_alone, meter), progress)


def _alone(meter: LocalMeter, trial: Trial) -> Measured:
    return measure_trial(meter, trial, EFFORT)


def _slowest(ranks: Ranks, trial: Trial) -> Measured:
    answers: list[Measured] = ranks.ask(measure_trial, trial, EFFORT)
    return max(answers, key=lambda one: one.timing.seconds)


def _verify(
    calibration: Calibration, in_one_call: bool, measure: Callable[[Trial], Measured],
    progress: Progress | None,
) -> Verification:  # fmt: skip
    target = calibration.target
    wanted = trials(target)
    found = _measure_all(wanted, measure, progress)
    compared = []
    for trial in wanted:
        measured = found[trial]
        memory = peak_bytes(trial, target) if measured.memory_bytes is not None else None
        guess = predict(calibration.fitted, trial, target, in_one_call=in_one_call)
        compared.append(
            Compared(trial=trial, measured=measured, predicted=guess, predicted_memory_bytes=memory)
        )
    return Verification(tuple(compared), gpu=target.kind != "cpu")


def _measure_all(
    wanted: list[Trial], measure: Callable[[Trial], Measured], progress: Progress | None
) -> dict[Trial, Measured]:
    """Measure every trial, and those that were disturbed again, as far as that helps."""
    found: dict[Trial, Measured] = {}
    for number in range(ROUNDS):
        left = [one for one in wanted if one not in found or found[one].timing.disturbed]
        for place, trial in enumerate(left):
            if progress is not None:
                again = " again" if number else ""
                progress(f"{trial.phase} {trial.model.name}{again}", float(place), float(len(left)))
            taken = measure(trial)
            if trial not in found or taken.timing.disturbed < found[trial].timing.disturbed:
                found[trial] = taken
    return found
