"""Counts of passes that grow in proportion equal those counted one by one."""

from collections import Counter

import numpy as np
import pytest

from moesim.sim.training.moments import fullest_moments
from moesim.sim.training.registry import ROUTES, stage_order
from moesim.sim.training.schedules import Pair
from moesim.sim.training.walk import walk

CHUNKS = {"interleaved": 3, "zb_v": 2, "dualpipe_v": 2}


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(
    "name", ["gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2", "zb_v", "dualpipe", "dualpipe_v"]
)
def test_counts_of_many_micro_batches(name: str, pairs: bool) -> None:
    if pairs and name in ("gpipe", "1f1b"):
        pytest.skip("no step pairs the passes of these")
    size = (40, CHUNKS.get(name, 1))
    for stage in range(4):
        order = stage_order(name, stage, 4, size, pairs)
        wanted = Counter(
            (one.forward.chunk, one.backward.chunk)
            if isinstance(one, Pair)
            else (one.kind, one.chunk)
            for one in order
        )
        found = walk(name, stage, 4, size, pairs)
        assert found.counts == dict(wanted)
        chunks = 2 if name in ROUTES else size[1]
        moments = {
            (tuple(held.tolist()), tuple(np.flatnonzero(at_work).tolist()))
            for held, at_work in zip(found.held, found.at_work, strict=True)
        }
        assert moments == {(one.held, one.at_work) for one in fullest_moments(order, chunks)}


def test_a_stage_of_zero_bubble_by_hand() -> None:
    """Stage 1 of 2, ZB-H1, two micro-batches: F0 I0 F1 I1 W0 W1; both W follow the last I."""
    found = walk("zb_h1", 1, 2, (2, 1), False)
    assert found.counts == {("F", 0): 2, ("I", 0): 2, ("W", 0): 2}
    assert found.late == {("W", 0): 2}
    assert (found.first, found.last, found.final) == (0, 0, ("W", 0))
