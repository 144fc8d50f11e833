"""Tasks on two streams: spans by hand, and bounds on random ones."""

from random import Random

import pytest

from moesim.cost.software import load_software
from moesim.cost.times import Part
from moesim.cost.two_streams import SLOWED, Interference, Task, interference, run_tasks
from moesim.hardware.device import device
from moesim.hardware.profiles import load_accelerator

PERFECT = Interference(rate=1.0, taken=0.0)
SLOWER = Interference(rate=0.5, taken=0.25)


def work(seconds: float, after: int | None = None, name: str = "products") -> Task:
    return Task(Part("compute", name, seconds), after=after)


def sent(seconds: float, after: int | None = None) -> Task:
    return Task(Part("scale-up", "dispatch", seconds), apart=True, after=after)


def span_s(*tasks: Task, cost: Interference = PERFECT) -> float:
    return sum(part.seconds for part in run_tasks(tasks, cost))


def test_nothing_takes_no_time() -> None:
    assert run_tasks([], PERFECT) == []


def test_one_pass_alone_overlaps_nothing() -> None:
    assert span_s(work(2), sent(3, after=0), work(1, after=1)) == 6


def test_an_exchange_hides_behind_what_does_not_need_it() -> None:
    """4 s of the longer pass, its exchange beside 3 s of the other, its last 4 s beside theirs."""
    longer = (work(4), sent(3, after=0), work(3), sent(3, after=2), work(4, after=1))
    assert span_s(*longer) == 11


def test_two_exchanges_wait_for_each_other() -> None:
    assert span_s(sent(2), sent(3)) == 5


def test_each_slows_the_other_by_hand() -> None:
    """3 s of compute at 3/4 and 2 s of exchange at 1/2 of its rate: both end after 4 s."""
    found = run_tasks([work(3), sent(2)], SLOWER)
    shown = {part.name: part.seconds for part in found}
    assert shown == {"products": pytest.approx(3), SLOWED: pytest.approx(1)}


def test_a_network_on_the_first_stream_is_not_shared() -> None:
    gather = Task(Part("scale-up", "tensor parallel", 2.0))
    assert span_s(gather, sent(3)) == 5


def test_a_task_that_waits_for_a_later_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="launched after it"):
        run_tasks([work(1, after=1), work(1)], PERFECT)


def test_units_that_exchanges_take() -> None:
    """20 of 132 with DeepEP, 16 with HybridEP: the defaults of Megatron-LM."""
    on, trainer = device(load_accelerator("h100-sxm")), load_software("megatron")
    assert interference(on, trainer, "deepep").taken == pytest.approx(20 / 132)
    assert interference(on, trainer, "hybridep").taken == pytest.approx(16 / 132)


def test_span_is_between_its_bounds() -> None:
    """At least the busy time of either stream, at most one task after the other."""
    random = Random(5)
    for _ in range(500):
        cost = Interference(rate=random.uniform(0.05, 1), taken=random.uniform(0, 0.9))
        tasks: list[Task] = []
        for number in range(random.randint(0, 12)):
            needed = random.choice([None, *range(number)])
            tasks.append(random.choice([work, sent])(random.uniform(0, 3), needed))
        span = span_s(*tasks, cost=cost)
        busy = [sum(t.part.seconds for t in tasks if t.apart is apart) for apart in (True, False)]
        assert max(busy) * (1 - 1e-9) <= span <= sum(busy) * (1 + 1e-9)
