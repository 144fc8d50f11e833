"""What was measured of a training run beside what was predicted, in the unit of the measurement."""

from dataclasses import replace

from moesim.cost.memory import StageMemory
from moesim.spec.cases import Case, Words
from moesim.study.outcome import Outcome
from moesim.study.validate.maxtext import is_maxtext
from moesim.study.validate.record import Record, ran
from moesim.study.validate.tpu import counted_flop_per_token
from moesim.study.validate.training_case import Mapped

GIB, GB = 2.0**30, 1e9


def compared(case: Case, mapped: Mapped, outcome: Outcome, record: Record) -> list[Record]:
    """Return the records of `case`: one for its speed, one for each figure of memory."""
    known = replace(record, assumed=mapped.assumed)
    speed = speed_of(case)
    found = []
    if speed is None and (speed := _from_own_flop(case, outcome)) is not None:
        who = "MaxText counts" if is_maxtext(case) else "counted here"
        note = f"tokens follow from the measured MFU and the FLOP per token {who}"
        known = replace(known, assumed=(*known.assumed, note))
    if speed is not None:
        metric, measured = speed
        found.append(ran(known, metric, _predicted_speed(metric, outcome), measured))
    for metric, (predicted_bytes, unit) in memory_figures(case, outcome).items():
        measured = case.part("measured")[metric]
        found.append(ran(known, metric, predicted_bytes / unit, float(measured)))
    return found


def speed_of(case: Case) -> tuple[str, float] | None:
    """Return the metric by which the speed of `case` is compared, and its value.

    Times and token rates; FLOP rates only through the token rate that follows from the case's own
    FLOP per token, since sources count FLOP in four ways.
    """
    measured, derived = case.part("measured"), case.part("derived")
    for words in (measured, derived):
        for metric in ("step_time_s", "tokens_per_s_per_gpu", "examples_per_s"):
            if isinstance(words.get(metric), int | float):
                return metric, float(words[metric])
    value = derived.get("tokens_per_s_per_gpu_if_causal_half")
    if isinstance(value, int | float):
        return "tokens_per_s_per_gpu", float(value)
    return _from_flop(case)


def _from_flop(case: Case) -> tuple[str, float] | None:
    measured, derived = case.part("measured"), case.part("derived")
    per_token = derived.get("gflop_per_token_causal")
    rate = measured.get("model_tflops_per_gpu")
    if rate is None:
        rate = _mfu_tflops(measured)
    if rate is None or not per_token:
        return None
    return "tokens_per_s_per_gpu", float(rate) * 1e3 / float(per_token)


def _mfu_tflops(measured: Words) -> float | None:
    if "mfu_pct" in measured and "mfu_peak_tflops" in measured:
        return float(measured["mfu_pct"] / 100 * measured["mfu_peak_tflops"])
    return None


def _from_own_flop(case: Case, outcome: Outcome) -> tuple[str, float] | None:
    rate, per_token = _mfu_tflops(case.part("measured")), outcome.metrics.model_flop_per_token
    if is_maxtext(case):
        run = outcome.run
        per_token = counted_flop_per_token(run.architecture, run.scenario.training.sequence_length)
    return ("tokens_per_s_per_gpu", rate * 1e12 / per_token) if rate and per_token else None


def _predicted_speed(metric: str, outcome: Outcome) -> float:
    metrics = outcome.metrics
    if metric == "step_time_s":
        return metrics.step_s
    if metric == "examples_per_s":
        return outcome.run.scenario.training.global_batch / metrics.step_s
    return metrics.tokens_per_s_per_device


def memory_figures(case: Case, outcome: Outcome) -> dict[str, tuple[float, float]]:
    """Return predicted bytes and the unit of every figure of memory that `case` has.

    Allocated is what tensors take, reserved what the allocator holds: with what it loses to
    fragmentation. Neither counts the driver's context.
    """
    stages = outcome.memory
    if "last pipeline stage" in case.text("guesses"):
        stages = stages[-1:]
    allocated = max(_tensors(one) for one in stages)
    held = max(_tensors(one) + one.fragmentation for one in stages)
    steady = max(_steady(one) for one in stages)
    known = {
        "peak_memory_alloc_gib": (allocated, GIB),
        "peak_memory_reserved_gib": (held, GIB),
        "peak_mem_allocated_gb": (allocated, GB),
        "peak_mem_allocated_gib_rank0": (_tensors(outcome.memory[0]), GIB),
        "mem_allocated_gb": (steady, GB),
        "peak_memory_gb": (held, GB),
        "peak_mem_gb": (held, GB),
    }
    measured = case.part("measured")
    return {
        name: found for name, found in known.items() if isinstance(measured.get(name), int | float)
    }


def _tensors(stage: StageMemory) -> float:
    return stage.total - stage.reserved - stage.fragmentation


def _steady(stage: StageMemory) -> float:
    """Return the bytes between steps: weights, gradients, optimizer states."""
    return _tensors(stage) - stage.activations - stage.working_set - stage.unsharded
