"""Blocks by classes of remainders are those of counting sequence by sequence."""

from random import Random

from moesim.sim.serving.cache import Blocks


def _counted(lengths: list[int], size: int) -> int:
    return sum(-(-length // size) for length in lengths)


def test_growth_is_what_counting_finds() -> None:
    random = Random(3)
    for _ in range(200):
        size, step = random.randint(1, 20), random.randint(0, 50)
        lengths = [random.randint(1, 100) for _ in range(random.randint(0, 12))]
        blocks = Blocks(size, 10**6)
        for length in lengths:
            blocks.start(length, step)
        steps = random.randint(1, 60)
        later = [length + steps for length in lengths]
        assert blocks.growth(step, steps) == _counted(later, size) - _counted(lengths, size)


def test_steps_that_fit_are_the_most_that_do() -> None:
    random = Random(4)
    for _ in range(200):
        size, step = random.randint(1, 20), random.randint(0, 50)
        lengths = [random.randint(1, 100) for _ in range(random.randint(1, 12))]
        used = _counted(lengths, size)
        blocks = Blocks(size, used + random.randint(0, 40), used)
        for length in lengths:
            blocks.start(length, step)
        most = random.randint(1, 80)
        fit = blocks.steps_that_fit(step, most)
        room = [k for k in range(most + 1) if blocks.growth(step, k) <= blocks.free]
        assert fit == max(room)


def test_what_stops_no_longer_counts() -> None:
    blocks = Blocks(4, 100)
    blocks.start(7, 2)
    blocks.start(8, 2)
    # five steps later the first has 12 tokens: it stops, and its class is empty again
    blocks.stop(12, 7)
    assert blocks.growing == 1
    assert blocks.growth(7, 4) == 1
