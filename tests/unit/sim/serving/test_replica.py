"""What an engine does with a handful of requests, by hand."""

import pytest

from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.requests import requests
from tests.unit.sim.serving.plain import replica, seconds, times


def test_two_requests_share_a_batch() -> None:
    """One-second iterations. The first prompt is done at 1, the second, which comes at 1.5, waits
    for the iteration under way and is done at 3; each later token takes a second."""
    asked = requests([10, 10], [4, 2], [0.0, 1.5])
    serve(replica(asked), asked)
    assert seconds(asked.scheduled) == [0.0, 2.0]
    assert seconds(asked.first) == [1.0, 3.0]
    assert seconds(asked.finish) == [4.0, 4.0]


def test_a_long_prompt_comes_in_chunks_beside_decoding() -> None:
    """A budget of 100 tokens, one of them for the request that decodes: 99 + 99 + 52."""
    asked = requests([10, 250], [8, 1], [0.0, 0.5])
    serve(replica(asked, token_budget=100), asked)
    assert seconds(asked.first) == [1.0, 4.0]
    assert seconds(asked.finish) == [8.0, 4.0]


def test_prompts_first_hold_decoding_up() -> None:
    """SGLang: three chunks of 100, 100 and 50 tokens with nobody decoding beside them."""
    asked = requests([10, 250], [8, 1], [0.0, 0.5])
    serve(replica(asked, token_budget=100, batching="prefill_first"), asked)
    assert seconds(asked.first) == [1.0, 4.0]
    assert seconds(asked.finish) == [11.0, 4.0]


def test_whole_prompts_wait_for_room_in_the_budget() -> None:
    """Two prompts of 60 tokens do not fit into 100 together."""
    asked = requests([60, 60], [1, 1])
    serve(replica(asked, token_budget=100, batching="whole_prompts"), asked)
    assert seconds(asked.finish) == [1.0, 2.0]


def test_a_static_batch_lasts_as_long_as_its_longest() -> None:
    """The second batch of two starts when the first has ended, at 1 + 4 seconds."""
    asked = requests([10] * 3, [5, 2, 1])
    serve(replica(asked, max_sequences=2, batching="static"), asked)
    assert seconds(asked.finish) == [5.0, 2.0, 6.0]


def test_places_are_limited() -> None:
    asked = requests([10] * 3, [3, 3, 3])
    serve(replica(asked, max_sequences=2), asked)
    assert seconds(asked.first) == [1.0, 1.0, 4.0]
    assert seconds(asked.finish) == [3.0, 3.0, 6.0]


def test_who_came_last_loses_its_place_when_the_cache_is_full() -> None:
    """Four blocks of four tokens; two prompts of seven take two each. In the step after the first
    both become eight, in the next one both need a third block: the later one leaves, and comes back
    with its two tokens when the first has ended, after one step of prompts of nine tokens."""
    asked = requests([7, 7], [4, 4])
    serve(replica(asked, block_tokens=4, blocks=4), asked)
    assert list(asked.preemptions) == [0, 1]
    # first: prompt until 1, then three steps. second: two tokens by 2, again from 4 to 5, last at 6
    assert seconds(asked.finish) == [4.0, 6.0]


def test_reserved_room_is_never_taken_away() -> None:
    """Seven and four tokens need three blocks of four; only one request at a time fits in four."""
    asked = requests([7, 7], [4, 4])
    serve(replica(asked, block_tokens=4, blocks=4, reserve_output=True), asked)
    assert list(asked.preemptions) == [0, 0]
    assert seconds(asked.finish) == [4.0, 8.0]


def test_a_closed_loop_keeps_as_many_in_flight() -> None:
    asked = requests([10] * 4, [2] * 4)
    serve_closed(replica(asked), asked, 2)
    assert seconds(asked.arrival) == [0.0, 0.0, 2.0, 2.0]
    assert seconds(asked.finish) == [2.0, 2.0, 4.0, 4.0]


def test_an_idle_replica_starts_when_a_request_comes() -> None:
    asked = requests([10, 10], [1, 1], [0.0, 7.25])
    serve(replica(asked), asked)
    assert seconds(asked.finish) == [1.0, 8.25]


def test_everything_is_given_back() -> None:
    asked = requests([50, 700, 3, 90], [9, 30, 1, 4], [0, 0.1, 3.0, 3.0])
    one = replica(asked, times(0.01, 1e-4), block_tokens=16)
    serve(one, asked)
    assert one.blocks.used == 0
    assert one.blocks.classes == [0] * 16
    assert one.cached == 0
    assert one.is_idle


@pytest.mark.parametrize("batching", ["mixed", "prefill_first", "whole_prompts", "static"])
def test_true_lengths_of_outputs_are_no_business_of_the_scheduler(batching: str) -> None:
    """Law 6: with the same allowed lengths everything is scheduled alike until the first end."""
    found = []
    for outputs in ([50, 60, 70], [80, 90, 50]):
        asked = requests([40, 30, 20], outputs)
        asked.allowed = type(asked.output)("q", [100, 100, 100])
        one = replica(asked, batching=batching, max_sequences=3, token_budget=64)
        serve(one, asked)
        found.append((seconds(asked.scheduled), seconds(asked.first)))
    assert found[0] == found[1]
