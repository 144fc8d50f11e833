"""Times all trials on the device and predicts each from the calibration."""

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


def verify(calibration: Calibration, progress: Progress | None = None) -> Verification:
    """Return every trial, measured and predicted."""
    target = calibration.target
    wanted = trials(target)
    found: list[Compared] = []

    def compare(trial: Trial, measured: Measured, *, in_one_call: bool) -> None:
        guess = predict(calibration.fitted, trial, target, in_one_call=in_one_call)
        memory = peak_bytes(trial, target) if measured.memory_bytes is not None else None
        found.append(
            Compared(trial=trial, measured=measured, predicted=guess, predicted_memory_bytes=memory)
        )

    def tell(number: int, trial: Trial) -> None:
        if progress is not None:
            progress(f"{trial.phase} {trial.model.name}", float(number), float(len(wanted)))

    if target.processes == 1:
        meter = LocalMeter(target)
        for number, trial in enumerate(wanted):
            tell(number, trial)
            measured = measure_trial(meter, trial, EFFORT)
            compare(trial, measured, in_one_call=meter.in_one_call)
        return Verification(tuple(found), gpu=target.kind != "cpu")
    with Ranks(target) as ranks:
        for number, trial in enumerate(wanted):
            tell(number, trial)
            answers = ranks.ask(measure_trial, trial, EFFORT)
            slowest = max(answers, key=lambda one: one.timing.seconds)
            compare(trial, slowest, in_one_call=ranks.in_one_call)
    return Verification(tuple(found), gpu=target.kind != "cpu")
