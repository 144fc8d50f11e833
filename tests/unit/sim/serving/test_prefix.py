"""Prefix caching: against an engine of explicit blocks, and against stepping."""

import random
from array import array

import pytest

from moesim.sim.serving.open_loop import serve
from moesim.sim.serving.prefix import prefix_cache
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.rules import EngineRules
from tests.unit.sim.serving.block_by_block import Engine, Job
from tests.unit.sim.serving.plain_times import PlainTimes

SIZE = 4


class Workload:
    """Random prompts that begin with one of a few texts, as a tree of ids."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.count = draw.randint(5, 40)
        self.prompts = [draw.randint(1, 60) for _ in range(self.count)]
        self.outputs = [draw.randint(1, 30) for _ in range(self.count)]
        self.arrivals = sorted(draw.randint(0, 60_000) for _ in range(self.count))
        self.names = []
        for number in range(self.count):
            text, same = draw.randint(0, 3), draw.randint(0, 12)
            whole = (self.prompts[number] + draw.choice((0, self.outputs[number]))) // SIZE
            own = 1000 * (number + 1)
            self.names.append([100 * text + k if k < same else own + k for k in range(whole)])
        least = max(p + o for p, o in zip(self.prompts, self.outputs, strict=True))
        self.limits = (draw.randint(1, 8), draw.randint(9, 40), SIZE, least // SIZE + 2)

    def requests(self) -> Requests:
        """Return the columns."""
        prompts, outputs = array("q", self.prompts), array("q", self.outputs)
        arrivals = array("q", self.arrivals)
        return Requests(prompts, outputs, arrivals, prefix=self.names, prefix_block=SIZE)

    def rules(self) -> EngineRules:
        """Return the limits."""
        places, budget, size, total = self.limits
        return EngineRules(
            max_sequences=places, token_budget=budget, block_tokens=size, blocks=total
        )


def check_blocks(replica: Replica) -> None:
    """Law 2: used + free + kept with an id = all, and all counts agree."""
    prefix = replica.prefix
    assert prefix is not None
    assert sum(prefix.order.values()) == replica.blocks.free
    kept = sum(prefix.size for one, count in prefix.holders.items() if count == 0)
    assert kept == prefix.kept
    assert replica.blocks.used + (replica.blocks.free - kept) + kept == replica.blocks.total
    assert {one for one in prefix.order if one >= 0} == {
        one for one, count in prefix.holders.items() if count == 0
    }


@pytest.mark.parametrize("seed", range(60))
def test_random_workloads_match_an_engine_of_explicit_blocks(seed: int) -> None:
    """Hits, first tokens and finishes, whether skipping or stepping."""
    drawn = Workload(seed)
    jobs = [Job(n, drawn.prompts[n], drawn.outputs[n], drawn.names[n]) for n in range(drawn.count)]
    Engine(jobs, drawn.arrivals, drawn.limits).run()
    for one_by_one in (False, True):
        asked = drawn.requests()
        replica = Replica(drawn.rules(), PlainTimes(), asked, one_by_one=one_by_one)
        serve(replica, asked)
        assert list(asked.cached) == [job.hit for job in jobs]
        assert list(asked.first) == [job.first for job in jobs]
        assert list(asked.finish) == [job.finish for job in jobs]


@pytest.mark.parametrize("seed", range(60, 80))
def test_blocks_add_up_after_every_change(seed: int) -> None:
    """Law 2, and an empty replica holds nothing."""
    drawn = Workload(seed)
    asked = drawn.requests()
    replica = Replica(drawn.rules(), PlainTimes(), asked)
    for request in range(drawn.count):
        replica.advance(drawn.arrivals[request])
        replica.submit(request, drawn.arrivals[request])
        check_blocks(replica)
    while (change := replica.next_change()) is not None:
        replica.advance(change)
        check_blocks(replica)
    assert replica.blocks.used == 0


def test_the_same_prompt_again_computes_one_block() -> None:
    """40 tokens in blocks of 4: 36 are found, the last block is computed for its token."""
    asked = Requests(
        array("q", [40, 40]), array("q", [1, 1]), array("q", [0, 10**9]),
        prefix=[range(10), range(10)], prefix_block=4,
    )  # fmt: skip
    rules = EngineRules(max_sequences=4, token_budget=64, block_tokens=4, blocks=30)
    serve(Replica(rules, PlainTimes(), asked), asked)
    assert list(asked.cached) == [0, 36]
    assert asked.first[0] == 1000 + 3 * 40 + 11 + 40 * 40
    assert asked.first[1] - 10**9 == 1000 + 3 * 4 + 11 + 4 * 40


def test_off_means_off() -> None:
    """Without prefix caching the same prompts are computed whole."""
    asked = Requests(
        array("q", [40, 40]), array("q", [1, 1]), array("q", [0, 10**9]),
        prefix=[range(10), range(10)], prefix_block=4,
    )  # fmt: skip
    rules = EngineRules(
        max_sequences=4, token_budget=64, block_tokens=4, blocks=30, prefix_caching=False
    )
    serve(Replica(rules, PlainTimes(), asked), asked)
    assert list(asked.cached) == [0, 0]


def test_ids_of_other_blocks_than_the_engine_s() -> None:
    """Ids of 16 tokens name every second half of a block of 32, and 32 blocks of a token."""
    half = prefix_cache([[1, 2, 3, 4, 5]], 16, 32, 10)
    assert (list(half.ids[0]), half.size, half.block_tokens) == ([2, 4], 1, 32)
    single = prefix_cache([[1, 2]], 16, 1, 100)
    assert (list(single.ids[0]), single.size, single.block_tokens) == ([1, 2], 16, 16)
    with pytest.raises(ValueError, match="multiple"):
        prefix_cache([[1]], 16, 24, 10)
