"""Schedules whose steady state runs a forward and a backward pass of two micro-batches as one."""

from moesim.sim.training.schedules import SCHEDULES, Order, alternate, passes


def joined(name: str, stage: int, stages: int, micro_batches: int, chunks: int) -> Order:
    """Return 1F1B or interleaved 1F1B with one more forward pass ahead, then pairs, then the rest.

    One more, so that the two of a pair do not wait for each other. Source: Megatron-LM,
    core/pipeline_parallel/schedules.py, overlap_moe_expert_parallel_comm.
    """
    order = passes(SCHEDULES[name](stage, stages, micro_batches, chunks))
    forward = [one for one in order if one.kind == "F"]
    backward = [one for one in order if one.kind == "B"]
    # of the forward passes at the start the last one alternates with a backward pass already
    ahead = next(number for number, one in enumerate(order) if one.kind == "B")
    return alternate(forward, backward, ahead, pairs=True)
