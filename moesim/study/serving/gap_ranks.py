"""Mean, percentiles and cumulative shares of gaps between tokens, without listing them."""

from collections.abc import Sequence

import numpy as np

from moesim.cost.iteration import PS_PER_S
from moesim.study.serving.gaps import Gaps, Ints


def mean_s(found: Gaps) -> float:
    """Return the mean gap in seconds, NaN of none."""
    return found.total_ps / found.count / PS_PER_S if found.count else float("nan")


def std_s(found: Gaps) -> float:
    """Return the standard deviation in seconds, NaN of none.

    Of n gaps evenly spaced from a to b the mean square is
    ((a + b) / 2)^2 + ((b - a)^2 / 12) (n + 1) / (n - 1); of one, a^2.
    """
    if not found.count:
        return float("nan")
    first, last = found.first / PS_PER_S, found.last / PS_PER_S
    spread = np.where(
        found.steps > 1, (last - first) ** 2 / 12 * (found.steps + 1)
        / np.maximum(1, found.steps - 1), 0.0,
    )  # fmt: skip
    counts = found.steps * found.weight
    middle = (first + last) / 2 - mean_s(found)
    return float(np.sqrt(np.dot(middle**2 + spread, counts) / found.count))


def percentile_s(found: Gaps, percent: float) -> float:
    """Return a percentile in seconds, linear between ranks as numpy's."""
    return percentiles_s(found, [percent])[0]


def percentiles_s(found: Gaps, percents: Sequence[float]) -> list[float]:
    """Return percentiles in seconds, linear between ranks as numpy's."""
    count = found.count
    if not count:
        return [float("nan")] * len(percents)
    places = [percent / 100 * (count - 1) for percent in percents]
    ranks = sorted({min(int(place) + more, count - 1) for place in places for more in (0, 1)})
    values = dict(zip(ranks, _at_ranks(found, ranks), strict=True))
    seconds = []
    for place in places:
        rank = int(place)
        low = values[rank]
        high = low if place == rank else values[rank + 1]
        seconds.append((low + (place - rank) * (high - low)) / PS_PER_S)
    return seconds


def _at_ranks(found: Gaps, ranks: Sequence[int]) -> list[int]:
    """Return the gaps with so many before them in order.

    No gap of a run is below its low end or above its high end, so the gap of a rank lies between
    what has that rank among all low ends and among all high ends; from there on by bisection.
    """
    low_end, high_end = _ends(found)
    gaps = found.steps * found.weight
    from_values, to_values = (_weighted(ends, gaps, ranks) for ends in (low_end, high_end))
    values = []
    for rank, low, high in zip(ranks, from_values, to_values, strict=True):
        before = high_end < low
        within = ~before & (low_end <= high)
        part = (low_end[within], high_end[within], found.steps[within], found.weight[within])
        below = int(gaps[before].sum())
        values.append(_bisected(part, rank - below, int(low), int(high)))
    return values


def _weighted(values: Ints, weights: Ints, ranks: Sequence[int]) -> Ints:
    """Return what has each rank among values that are there so many times each."""
    order = np.argsort(values)
    return values[order[np.searchsorted(np.cumsum(weights[order]), ranks, side="right")]]


def _bisected(runs: tuple[Ints, Ints, Ints, Ints], rank: int, low: int, high: int) -> int:
    low_end, high_end, steps, weight = runs
    while low < high:
        middle = (low + high) // 2
        if int(np.dot(_up_to(low_end, high_end, steps, middle), weight)) > rank:
            high = middle
        else:
            low = middle + 1
    return low


def _ends(found: Gaps) -> tuple[Ints, Ints]:
    return np.minimum(found.first, found.last), np.maximum(found.first, found.last)


def _up_to(low_end: Ints, high_end: Ints, steps: Ints, value: int) -> Ints:
    """Return how many gaps of each run are `value` at most."""
    span = np.maximum(high_end - low_end, 1)
    within = (value - low_end) * (steps - 1) // span + 1
    counted = np.where(high_end <= value, steps, np.clip(within, 0, steps))
    return np.where(low_end > value, 0, counted)


def shares_up_to(found: Gaps, seconds: Sequence[float]) -> list[float]:
    """Return the share of the gaps that are at most each of `seconds` long."""
    everything = found.count
    if not everything:
        return [float("nan")] * len(seconds)
    low_end, high_end = _ends(found)
    limits = np.array([round(s * PS_PER_S) for s in seconds], dtype=np.int64)
    order = np.argsort(high_end)
    whole = np.concatenate([[0], np.cumsum((found.steps * found.weight)[order])])
    counts = whole[np.searchsorted(high_end[order], limits, side="right")]
    wide = np.flatnonzero(low_end < high_end)  # others are never cut by a limit
    low_end, high_end = low_end[wide], high_end[wide]
    shares = []
    for limit, count in zip(limits.tolist(), counts.tolist(), strict=True):
        at = np.flatnonzero((low_end <= limit) & (high_end > limit))
        cut = _up_to(low_end[at], high_end[at], found.steps[wide[at]], limit)
        shares.append((count + int(np.dot(cut, found.weight[wide[at]]))) / everything)
    return shares
