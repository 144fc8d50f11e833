import pytest

from moesim.calibrate.bench import Batch, Timing, per_call
from moesim.calibrate.bench import timing as of_batches
from moesim.calibrate.clock import Lap, lap, mark
from moesim.calibrate.device import Target
from tests.unit.calibrate.made_up import target


def gpu() -> Target:
    return target(kind="cuda", vendor="nvidia")


def timing(device: list[float], host: list[float], on: Target) -> Timing:
    return of_batches([Batch(d, h) for d, h in zip(device, host, strict=True)], on)


def test_disturbed_batches_count_only_where_there_are_no_others() -> None:
    quiet, busy = Batch(1.0, 1.0, 0.0), Batch(0.5, 0.5, 0.6)
    taken = of_batches([busy, quiet, busy, quiet], target())
    assert (taken.seconds, taken.repeats, taken.disturbed) == (1.0, 2, 0.0)
    assert of_batches([busy, busy], target()).disturbed == 0.6
    assert of_batches([busy, quiet], target(compute_units=1)).repeats == 2


def test_a_gpu_gives_its_median_a_cpu_its_quickest_tenth() -> None:
    batches = [1.0, 1.1, 1.2, 1.3, 9.0]
    assert timing(batches, batches, gpu()).seconds == pytest.approx(1.2)
    assert timing(batches, batches, target()).seconds == pytest.approx(1.04)


def test_the_spread_is_half_the_distance_between_quartiles() -> None:
    batches = [1.0, 1.0, 2.0, 3.0, 3.0]
    assert timing(batches, batches, gpu()).spread == pytest.approx(0.5)
    assert timing([2.0] * 5, [2.0] * 5, gpu()).spread == 0.0


def test_a_call_that_works_several_times_is_divided() -> None:
    taken = per_call(timing([8.0], [4.0], gpu()), 8)
    assert (taken.seconds, taken.host_s, taken.repeats) == (1.0, 0.5, 1)


def test_the_wait_for_a_processor_is_taken_off_but_never_all() -> None:
    assert Lap(1.0, 0.25).seconds == 0.75
    assert Lap(1.0, 0.0).seconds == 1.0
    assert Lap(1.0, 3.0).seconds == pytest.approx(0.1)


@pytest.mark.parametrize("threads", [None, 1, 4])
def test_the_clock_goes_forward(threads: int | None) -> None:
    begin = mark(threads)
    total = sum(i * i for i in range(20000))
    taken = lap(begin)
    assert total > 0
    assert 0 < taken.seconds <= taken.wall_s
