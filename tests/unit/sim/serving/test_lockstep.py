"""Attention data parallel ranks, by hand."""

from moesim.cost.iteration import TabledTimes
from moesim.sim.serving.lockstep import Lockstep, fewest_waiting
from moesim.sim.serving.open_loop import serve
from moesim.sim.serving.pipelined import Pipelined
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests, requests
from tests.unit.sim.serving.plain import rules, seconds, times


def _ranks(asked: Requests, of: TabledTimes, count: int = 2, patience: int = 0) -> Lockstep:
    ranks = [Replica(rules(), of, asked) for _ in range(count)]
    return Lockstep(ranks, of, fewest_waiting, patience)


def test_requests_go_to_the_rank_with_fewest() -> None:
    asked = requests([10] * 4, [2] * 4)
    both = _ranks(asked, times())
    for request in range(4):
        both.submit(request, 0)
    assert [list(rank.queue) for rank in both.ranks] == [[0, 2], [1, 3]]


def test_all_ranks_wait_for_the_one_with_a_prompt() -> None:
    """0.1 s for each token of a prompt: while rank 1 computes 20 of them, rank 0 waits 3 s."""
    asked = requests([10, 20], [4, 1], [0.0, 1.5])
    serve(_ranks(asked, times(1.0, 0.1)), asked)
    # 1 + 1 s for the first prompt, then rank 1's prompt with 1 + 2 s beside one step of rank 0
    assert seconds(asked.first) == [2.0, 5.0]
    assert seconds(asked.finish) == [7.0, 5.0]


def test_the_fullest_rank_sets_the_pace() -> None:
    """A step takes a microsecond per cached token: rank 0 holds 1,000, rank 1 holds 10."""
    slow = TabledTimes(
        decode_s=lambda n: ([0, 10**9], [0.0, 1e-6 * 10**9]),
        batch_s=lambda tokens, sequences, everyone: 0.0,
        attend_s=lambda tokens, past: 0.0,
    )
    asked = requests([1000, 10], [2, 2])
    serve(_ranks(asked, slow), asked)
    assert seconds(asked.finish) == [1001e-6, 1001e-6]


def test_experts_take_the_tokens_of_all_ranks() -> None:
    seen = []

    def batch_s(tokens: int, sequences: int, everyone: int) -> float:
        seen.append((tokens, sequences, everyone))
        return 1.0

    of = TabledTimes(lambda n: ([0, 10**9], [0.0, 0.0]), batch_s, lambda tokens, past: 0.0)
    asked = requests([10, 30, 5], [3, 2, 2])
    serve(_ranks(asked, of), asked)
    # prompts of 10 and 5 on rank 0, of 30 on rank 1; then two sequences beside one, then one alone
    assert seen == [(30, 2, 45), (2, 2, 3), (1, 1, 1)]


def test_patient_ranks_compute_their_prompts_together() -> None:
    """A prompt that comes at 0.5 waits until the other rank has one too, at 2.5, or for so long.

    One second a step and ten for each prompt that is computed.
    """
    asked = requests([10, 10, 10, 10], [30, 30, 1, 1], [0.0, 0.0, 11.5, 13.5])
    serve(_ranks(asked, times(1.0, 1.0), patience=5), asked)
    # both first prompts by 11; steps until 14, when both ranks have a prompt: 1 + 10 s
    assert seconds(asked.first) == [11.0, 11.0, 25.0, 25.0]
    alone = requests([10, 10, 10], [30, 30, 1], [0.0, 0.0, 11.5])
    serve(_ranks(alone, times(1.0, 1.0), patience=5), alone)
    # it could have been taken at 12: five steps later nobody else has come
    assert seconds(alone.first) == [11.0, 11.0, 28.0]


def test_batches_of_a_pipeline_go_on_by_themselves() -> None:
    asked = requests([10, 10, 10], [3, 1, 2], [0.0, 0.0, 1.5])
    both = Pipelined([Replica(rules(), times(), asked) for _ in range(2)])
    serve(both, asked)
    # the third goes to the second batch, which is idle: it starts at once
    assert seconds(asked.finish) == [3.0, 1.0, 3.5]
