"""Schedules that run weight gradients apart from the gradients that other stages wait for."""

from moesim.sim.training.schedules import Action, Order


def zb_h1(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> Order:
    """Return ZB-H1: 1F1B whose weight gradients follow `stage` micro-batches late, in the bubbles.

    Bubble (p - 1)(f + b - w), with b the gradients of inputs and w those of weights; every stage
    holds as much as the first of 1F1B. Holds for p micro-batches or more and w <= min(f, b).
    Source: Qi et al., arXiv 2401.10241, section 2 and table 2.
    """
    del chunks
    ahead = min(stages - stage - 1, micro_batches)
    order = [Action("F", i) for i in range(ahead)]
    for i in range(micro_batches):
        order += [Action("F", ahead + i)] if ahead + i < micro_batches else []
        order.append(Action("I", i))
        order += [Action("W", i - stage)] if i >= stage else []
    done = max(0, micro_batches - stage)
    return (*order, *(Action("W", i) for i in range(done, micro_batches)))
