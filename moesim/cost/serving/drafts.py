"""Iterations of speculative decoding: guesses one after the other, then a step that checks them.

A step of n sequences with k guesses computes n (k + 1) tokens in everything but attention, whose
kernel reads the cache once for all of them (assumed: as long as for one token), and before that k
passes of what guesses, of n tokens each; of prompts one pass goes beside the model's own.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moesim.cost.iteration import TabledTimes
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.encoder import EncoderTimes, encoder_times
from moesim.cost.serving.ping_pong import ping_pong_times
from moesim.cost.serving.products import gemm_s
from moesim.cost.serving.table import HostTime, iteration_times
from moesim.model.architecture import Run


def times_of(on: Deployment, host: HostTime) -> TabledTimes | EncoderTimes:
    """Return what iterations of `on` take, with its encoder, or with what guesses tokens."""
    if on.architecture.encoder:
        return encoder_times(on, host)
    if on.cut.ffn:
        return ping_pong_times(on, host)
    if on.drafting is None:
        return iteration_times(on, host)
    return _drafted(on, on.drafting.tokens, host)


def _drafted(on: Deployment, guesses: int, host: HostTime) -> TabledTimes:
    checked = iteration_times(replace(on, drafting=None), host)
    guessed = iteration_times(_guesser(on), HostTime())

    def joined_s(tokens: int) -> float:
        """A prediction module first joins hidden state and embedding: 2h to h."""
        assert on.drafting is not None
        if on.drafting.model is not None:
            return 0.0
        hidden, count = on.architecture.hidden, np.array([float(tokens)])
        local = max(1, hidden // on.cut.tp)
        return float(gemm_s(count, local, 2 * hidden, on.formats.dense, on)[0])

    def guess_s(tokens: int, sequences: int) -> float:
        return guessed.batch_s(tokens, sequences, tokens) + joined_s(tokens)

    def batch_s(tokens: int, sequences: int, everyone: int) -> float:
        more = guesses * sequences
        own = checked.batch_s(tokens + more, sequences + more, everyone + more)
        rest = (guesses - 1) * guess_s(sequences, sequences) if guesses > 1 else 0.0
        return own + guess_s(tokens, sequences) + rest

    def decode_s(sequences: int) -> tuple[Sequence[int], Sequence[float]]:
        places, own = checked.decode_s(sequences)
        same, once = guessed.decode_s(sequences)
        assert places == same
        return places, [a + guesses * b for a, b in zip(own, once, strict=True)]

    def attend_s(tokens: int, past: int) -> float:
        return checked.attend_s(tokens, past) + guessed.attend_s(tokens, past)

    return TabledTimes(decode_s, batch_s, attend_s)


def _guesser(on: Deployment) -> Deployment:
    """Return what guesses as a deployment: a model, or one more layer like the last."""
    assert on.drafting is not None
    if on.drafting.model is not None:
        return on.drafting.model
    last = on.architecture.decoder[-1].layer
    module = replace(on.architecture, decoder=(Run(last, 1),), encoder=())
    return replace(on, architecture=module, drafting=None)
