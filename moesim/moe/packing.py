"""Two greedy algorithms on loads: pack items into equal bins, and give hot items more copies.

Both run on many layers at once: arrays are [layers, items], the loop is over items only.
"""

import numpy as np
from numpy.typing import NDArray

Loads = NDArray[np.float64]
Indices = NDArray[np.int64]


def pack(loads: Loads, bins: int, room: int) -> Indices:
    """Return [layers, bins, room]: the item at each place, -1 where a place stays empty.

    Largest item first, each onto the least loaded bin that has room: longest processing time
    first, R. L. Graham, Bounds on multiprocessing timing anomalies (1969), with a bound on the
    items of a bin as `balanced_packing` of deepseek-ai/EPLB eplb.py has it.
    """
    layers, items = loads.shape
    order = np.argsort(-loads, axis=1, kind="stable")
    largest_first = np.take_along_axis(loads, order, axis=1)
    every = np.arange(layers)
    # a bin that is full is infinitely loaded: argmin never takes it
    totals = np.zeros((layers, bins))
    filled = np.zeros((layers, bins), dtype=np.int64)
    placed = np.full((layers, bins, room), -1, dtype=np.int64)
    for number in range(items):
        target = totals.argmin(axis=1)
        place = filled[every, target]
        placed[every, target, place] = order[:, number]
        filled[every, target] = place + 1
        totals[every, target] += np.where(place + 1 == room, np.inf, largest_first[:, number])
    return placed


def replicate(loads: Loads, copies: int) -> Indices:
    """Return [layers, copies]: the item that each copy is of; every item has one at least.

    Items 0, 1, ... first, then one more copy at a time of the item with the highest load per
    copy: `replicate_experts` of deepseek-ai/EPLB eplb.py.
    """
    layers, items = loads.shape
    every = np.arange(layers)
    item_of = np.empty((layers, copies), dtype=np.int64)
    item_of[:, :items] = np.arange(items)
    count = np.ones((layers, items))
    per_copy = loads.copy()
    for number in range(items, copies):
        hottest = per_copy.argmax(axis=1)
        item_of[:, number] = hottest
        count[every, hottest] += 1
        per_copy[every, hottest] = loads[every, hottest] / count[every, hottest]
    return item_of


def copies_of(item_of: Indices, items: int) -> Indices:
    """Return [layers, items]: how many places of `item_of` [layers, places] hold each item.

    Places that hold -1 are empty.
    """
    layers = item_of.shape[0]
    # column 0 counts the empty places and is left out
    flat = item_of + 1 + (items + 1) * np.arange(layers)[:, None]
    counts = np.bincount(flat.ravel(), minlength=layers * (items + 1))
    return np.asarray(counts.reshape(layers, items + 1)[:, 1:], dtype=np.int64)


def number_among_equals(values: Indices) -> Indices:
    """Return for each value of a row how many equal ones stand before it in that row."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    position = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    starts = np.ones(values.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=1)
    numbers = np.empty_like(values)
    np.put_along_axis(numbers, order, position - first, axis=1)
    return numbers
