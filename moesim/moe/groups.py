"""Routing groups: over whose tokens a capacity counts, and which of them compete for slots."""

from collections.abc import Callable
from dataclasses import dataclass

from moesim.moe.capacity import CapacityRule
from moesim.moe.habits import HABITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """How many tokens there are to group in one micro-batch."""

    sequence: int
    """Tokens of a sequence."""
    rank: int
    """Tokens that one rank holds of a micro-batch."""
    ep_ranks: int
    """Ranks over which the experts are spread."""


def sequence(rule: CapacityRule, tokens: Tokens) -> int:
    """Return the tokens of one sequence."""
    del rule
    return min(tokens.sequence, tokens.rank * tokens.ep_ranks)


def rank(rule: CapacityRule, tokens: Tokens) -> int:
    """Return the tokens that one rank holds."""
    del rule
    return tokens.rank


def group(rule: CapacityRule, tokens: Tokens) -> int:
    """Return the stated size of a group, at most all tokens; a rank's if none is stated."""
    return min(rule.group_tokens or tokens.rank, tokens.rank * tokens.ep_ranks)


def world(rule: CapacityRule, tokens: Tokens) -> int:
    """Return the tokens of all ranks over which the experts are spread."""
    del rule
    return tokens.rank * tokens.ep_ranks


SCOPES: dict[str, Callable[[CapacityRule, Tokens], int]] = {
    "sequence": sequence,
    "rank": rank,
    "group": group,
    "world": world,
}
"""Whose tokens are a routing group, by the name in YAML."""


def scope(rule: CapacityRule) -> str:
    """Return the rule's scope; group where it states a size, else that of its code base."""
    own = "group" if rule.group_tokens is not None else HABITS[rule.formula].scope
    return rule.scope or own


def group_tokens(rule: CapacityRule, tokens: Tokens) -> int:
    """Return the number of tokens of a routing group."""
    return SCOPES[scope(rule)](rule, tokens)


def padding_occupies(rule: CapacityRule) -> bool:
    """Return whether padding tokens are routed and take slots."""
    said = rule.padding_tokens_occupy_capacity
    return HABITS[rule.formula].padding_tokens_occupy_capacity if said is None else said


def competing_tokens(rule: CapacityRule, tokens: int) -> int:
    """Return the tokens of a group that want slots; its slots follow all `tokens` in any case.

    That is why a capacity below the mean load can drop less than it lacks: at a factor of 0.75
    and a fifth of padding that is not routed, slots are 0.9375 of what is wanted.
    """
    padding = 0 if padding_occupies(rule) else round(rule.padding_fraction * tokens)
    return tokens - padding
