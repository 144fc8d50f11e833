"""Which assignments find a slot, token by token: order of placing, drop policies, residual path."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moesim.moe import habits
from moesim.moe.capacity import CapacityRule
from moesim.moe.choices import Choices
from moesim.moe.groups import padding_occupies

Mask = NDArray[np.bool_]
Keys = NDArray[np.float64]


def position(choices: Choices, generator: np.random.Generator | None, by_choice: bool) -> Keys:
    """Serve tokens in their order: first come, first served."""
    del generator, by_choice
    return np.zeros(choices.experts.shape)


def probs(choices: Choices, generator: np.random.Generator | None, by_choice: bool) -> Keys:
    """Serve large gate weights first.

    Where first choices are placed first, a token's place in the queue is that of its largest
    weight for all its choices: batch-prioritised routing, as fairseq, tutel and flaxformer do it.
    """
    del generator
    weights = choices.weights
    return -(np.broadcast_to(weights[:, :1], weights.shape) if by_choice else weights)


def random(choices: Choices, generator: np.random.Generator | None, by_choice: bool) -> Keys:
    """Serve assignments in random order: DeepSpeed's random token selection."""
    del by_choice
    if generator is None:
        raise ValueError("the drop policy random needs a generator")
    return generator.random(choices.experts.shape)


POLICIES: dict[str, Callable[[Choices, np.random.Generator | None, bool], Keys]] = {
    "position": position,
    "probs": probs,
    "random": random,
}
"""Who is served first, by the name in YAML; equal keys go by position."""


def keep(
    choices: Choices,
    slots: int,
    policy: str = "position",
    generator: np.random.Generator | None = None,
    *,
    by_choice: bool = False,
    declined: Mask | None = None,
) -> Mask:
    """Return which assignments [tokens, k] of one routing group find a slot at their expert.

    by_choice: all first choices are placed before any second choice. declined: choices that the
    router turned down but which hold a place in the queue, as in GShard's Algorithm 1.
    """
    keys = POLICIES[policy](choices, generator, by_choice)
    rank = (
        np.broadcast_to(np.arange(keys.shape[1]), keys.shape) if by_choice else np.zeros_like(keys)
    )
    places = _places(choices.experts, (keys, rank))
    kept = (choices.experts >= 0) & (places < slots)
    return kept if declined is None else kept & ~declined


def keep_by_rule(
    rule: CapacityRule,
    choices: Choices,
    slots: int,
    generator: np.random.Generator | None = None,
    *,
    padding: Mask | None = None,
    declined: Mask | None = None,
) -> Mask:
    """Return which assignments find a slot in the order and by the policy of the rule.

    padding: the tokens [tokens] that are padding; they are kept only where they may take slots.
    """
    top_k = choices.experts.shape[1]
    if padding is not None and not padding_occupies(rule):
        choices = without(choices, padding)
    return keep(
        choices,
        slots,
        rule.policy or habits.own_policy(rule.formula, top_k),
        generator,
        by_choice=habits.by_choice(rule.formula, top_k),
        declined=declined,
    )


def without(choices: Choices, tokens: Mask) -> Choices:
    """Return the choices with those of the given tokens taken out."""
    return Choices(
        np.where(tokens[:, None], -1, choices.experts),
        np.where(tokens[:, None], 0, choices.weights),
    )


def keep_in_budget(
    choices: Choices,
    devices: NDArray[np.int64],
    budget: int,
    generator: np.random.Generator | None = None,
    *,
    policy: str = "probs",
    spared: Mask | None = None,
) -> Mask:
    """Return which assignments stay when each device accepts `budget` of them.

    devices[expert] is where an expert lives. By the policy probs, the source's, a device drops its
    lowest gate weights first; tokens of `spared` [tokens] stay in any case and are counted first.

    Source: DeepSeek-V2 technical report, section 2.2.4 (deepseek-ai/DeepSeek-V2 @ec98ee3c).
    """
    experts = choices.experts
    first = np.zeros(len(experts), dtype=np.bool_) if spared is None else spared
    stays = np.broadcast_to(first[:, None], experts.shape)
    where = np.where(experts >= 0, devices[experts], -1)
    places = _places(where, (POLICIES[policy](choices, generator, False), ~stays))
    return np.asarray((experts >= 0) & (stays | (places < budget)))


def spared_tokens(
    tokens: int, sequence_tokens: int, spared_fraction: float, generator: np.random.Generator
) -> Mask:
    """Return the tokens of the sequences, drawn at random, that are never dropped."""
    sequences = -(-tokens // sequence_tokens)
    chosen = generator.permutation(sequences)[: round(spared_fraction * sequences)]
    return np.isin(np.arange(tokens) // sequence_tokens, chosen)


def _places(groups: NDArray[np.int64], keys: tuple[NDArray[np.generic], ...]) -> NDArray[np.int64]:
    """Return each assignment's place in the queue of its group; the last key counts most."""
    queue = np.lexsort((*(key.ravel() for key in keys), groups.ravel()))
    queued = groups.ravel()[queue]
    places = np.empty(queue.size, dtype=np.int64)
    places[queue] = np.arange(queue.size) - np.searchsorted(queued, queued)
    return places.reshape(groups.shape)
