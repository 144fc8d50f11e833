"""What limiting every token to some groups of experts makes of the choices that a table offers.

The router of DeepSeek-V3 (arXiv 2412.19437, section 2.1.2; 8 groups, of which each token takes 4)
ranks groups by their two best experts, then takes the best of the groups left. Where the offered
choices score all alike, groups with two of them or more come first, then those of lowest number,
and free places go to the experts of lowest number: half the choices of an even load, one in each
group, end up with the first four experts. How ties fall is read off the times (with even loads all
experts take as long on one rank as half of them do on each of two).
"""

import numpy as np
from numpy.typing import NDArray

from moesim.cost.curves import Array

_GROUPS, _LEFT = 8, 4
_MOST_TOKENS = 2048
"""Tokens that are followed one by one: of more, evenly spaced ones stand for all."""


def even_grouped_rows(tokens: int, experts: int) -> Array:
    """Return rows per expert where each token is offered one expert in each of 8 groups.

    Token t is offered expert t mod (experts / 8) of every group, and keeps those of the first 4;
    the other 4 of its 8 choices go to the first 4 experts, or the fifth where it has one of them.
    """
    size = experts // _GROUPS
    offered = np.bincount(np.arange(tokens) % size, minlength=size).astype(np.float64)
    rows = np.concatenate([np.tile(offered, _LEFT), np.zeros(experts - _LEFT * size)])
    rows[_LEFT] += offered[:_LEFT].sum()
    rows[:_LEFT] = tokens
    return rows


def grouped_rows(rows: Array, tokens: int) -> Array:
    """Return rows per expert after grouping, from the rows [experts] that were offered.

    Experts are handed out in order of their rows, one choice of all tokens after the other.
    """
    experts = len(rows)
    order = np.argsort(-rows, kind="stable")
    offered = np.repeat(order, rows[order].astype(np.int64))
    choices = len(offered) // tokens
    step = max(1, tokens // _MOST_TOKENS)
    hot = offered[: choices * tokens].reshape(choices, tokens)[:, ::step].T
    kept, lowest = _kept(hot, experts // _GROUPS)
    found = np.bincount(hot[kept], minlength=experts).astype(np.float64)
    found += _filled(hot, choices - kept.sum(axis=1), lowest * (experts // _GROUPS), experts)
    return found * (tokens / len(hot))


def _kept(hot: NDArray[np.int64], size: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which choices lie in the groups left, and the lowest group left of each token."""
    group = hot // size
    offers = np.stack([(group == g).sum(axis=1) for g in range(_GROUPS)], axis=1)
    rank = np.argsort(-np.minimum(offers, 2), axis=1, kind="stable")[:, :_LEFT]
    kept = (group[:, :, None] == rank[:, None, :]).any(axis=2)
    return kept, rank.min(axis=1)


def _filled(
    hot: NDArray[np.int64], free: NDArray[np.int64], first: NDArray[np.int64], experts: int
) -> Array:
    """Return the rows of experts that fill free places, from `first` upwards."""
    near = first[:, None] + np.arange(2 * _GROUPS)
    taken = (near[:, :, None] == hot[:, None, :]).any(axis=2)
    number = np.cumsum(~taken, axis=1)
    fills = ~taken & (number <= free[:, None])
    return np.bincount(near[fills], minlength=experts)[:experts].astype(np.float64)
