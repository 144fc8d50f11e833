"""What a checkpoint of a training run holds, how long it takes, how often it should be taken."""

from math import exp, expm1, sqrt

from moesim.cost.optimizer import OptimizerRule


def checkpoint_bytes(params: float, rule: OptimizerRule) -> float:
    """Return the bytes of weights, master weights and moments.

    B = P (w + s): w as weights travel (an fp8 copy is made anew from bf16), s the optimizer's
    state; 2 + 12 bytes with Adam and bf16 weights (Megatron-LM theoretical_memory_usage.py
    @d98e8a64: 18 bytes, of which 4 are the gradient). Data order and random states are left out.
    """
    return params * (rule.gathered_bytes + rule.state_bytes)


def storage_s(size_bytes: float, bandwidth_bytes_per_s: float) -> float:
    """Return the seconds to write or read a checkpoint: t = B / b, all devices at once."""
    return size_bytes / bandwidth_bytes_per_s


def young_interval_s(blocked_s: float, mtbf_s: float) -> float:
    """Return the training time between checkpoints that costs least, to first order.

    tau = sqrt(2 C M), C the time of a checkpoint, M the job's mean time between failures (Young
    1974, CACM 17(9)); good while tau is much shorter than M.
    """
    return sqrt(2 * blocked_s * mtbf_s)


def expected_wall_s(
    training_s: float, every_s: float, blocked_s: float, restart_s: float, mtbf_s: float
) -> float:
    """Return the expected time of a campaign whose failures strike at any time.

    T = M exp(R/M) (exp((tau + C)/M) - 1) Ts / tau (Daly 2006, FGCS 22(3), his complete model);
    nodes are always at hand and training waits for each checkpoint. Infinite where it would never
    end.
    """
    cycle = (every_s + blocked_s) / mtbf_s
    restart = restart_s / mtbf_s
    if cycle + restart > 600:
        return float("inf")
    return mtbf_s * exp(restart) * expm1(cycle) * training_s / every_s
