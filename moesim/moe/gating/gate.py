"""What a gating rule needs to know: the record that every rule reads."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from moesim.errors import ModelError, nearest

SecondPolicy = Literal["all", "none", "threshold", "random_gshard", "random_mtf", "sampling"]
Link = Literal["scale_up", "scale_out"]
LevelRule = Literal["softmax_topk", "noisy_topk", "base"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a hierarchy of experts: each part of the level above splits into `fanout`."""

    fanout: int
    """Parts into which a part of the level above splits; at the last level, its experts."""
    limit: int
    """Parts that a token may enter. In the last level of a shared router: experts in all."""
    link: Link | None = None
    """What tokens cross to reach these parts; None: see `linked` in dispatchers.py. No rule reads
    it; dispatch does."""
    rule: LevelRule = "softmax_topk"
    """How the level's own router chooses (nested)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A router: sizes, and the fields that one rule or another reads."""

    experts: int
    top_k: int = 1
    normalise: bool = True
    """Whether weights are divided by their sum over the chosen experts (before a second-expert
    policy is asked); else they are what softmax or sigmoid gives."""
    scale: float = 1.0
    """What weights are multiplied with: 2.5 in DeepSeek-V3 (deepseek_v2, deepseek_v3)."""
    sharpness: float = 1.0
    """Logits are sharpness * (log share + Gumbel noise); it moves weights, not who is chosen."""
    noise: float = 0.0
    """Standard deviation of the noise on a logit, softplus(x W_noise) (noisy_topk)."""
    jitter: float = 0.0
    """Half width of the factor on the router's input, 1e-2 in Switch (switch_top1, st_moe)."""
    second_policy: SecondPolicy = "all"
    """Whether the second of two experts gets its token (gshard_top2, mtf_v2)."""
    threshold: float = 0.2
    """What threshold and random_mtf compare the second weight with."""
    groups: int = 1
    """Equal groups of experts, in order (deepseek_v2, deepseek_v3)."""
    groups_per_token: int = 1
    """Groups in which a token may choose."""
    bias: tuple[float, ...] = ()
    """Added to scores when experts are chosen, not to weights (deepseek_v3); empty: none."""
    levels: tuple[Level, ...] = ()
    """The hierarchy from the top (hierarchical, mtf_v2, nested)."""
    shared_router: bool = False
    """Whether one router's scores serve all levels, as in node-limited routing (hierarchical)."""
    capacity_factor: float = 1.0
    """Tokens that each expert takes, over T / E (expert_choice)."""
    hash_map: Literal["mixed", "balanced"] = "mixed"
    """How token ids are mapped to experts (hash)."""


def problems(name: str, gate: Gate) -> tuple[str, ...]:
    """Return what does not fit together in the gate of the rule `name`; empty if all does."""
    found = []
    if not 1 <= gate.top_k <= gate.experts:
        found.append(f"top_k {gate.top_k} must lie between 1 and the {gate.experts} experts")
    if name in _TOP_K and gate.top_k != _TOP_K[name]:
        found.append(f"top_k is {_TOP_K[name]} here, not {gate.top_k}")
    if gate.sharpness <= 0 and not (name == "noisy_topk" and gate.sharpness == 0 < gate.noise):
        found.append("sharpness must be positive, or with noisy_topk 0 and noise positive")
    if gate.bias and len(gate.bias) != gate.experts:
        found.append(f"{len(gate.bias)} biases for {gate.experts} experts")
    if gate.levels or name in _WITH_LEVELS:
        found += _level_problems(name, gate)
    return (*found, *_group_problems(gate))


_TOP_K = {"switch_top1": 1, "base": 1, "hash": 1, "gshard_top2": 2, "mtf_v2": 3}
_WITH_LEVELS = ("hierarchical", "mtf_v2", "nested")


def _group_problems(gate: Gate) -> list[str]:
    if gate.groups == 1:
        return []
    if gate.groups < 1 or gate.experts % gate.groups:
        return [f"{gate.experts} experts do not split into {gate.groups} equal groups"]
    if not 1 <= gate.groups_per_token <= gate.groups:
        return [f"groups_per_token must lie between 1 and {gate.groups}"]
    if gate.top_k > gate.groups_per_token * (gate.experts // gate.groups):
        return [f"{gate.groups_per_token} groups hold fewer than {gate.top_k} experts"]
    return []


def _level_problems(name: str, gate: Gate) -> list[str]:
    if not gate.levels:
        return ["levels are missing"]
    if name == "mtf_v2":
        limits = [level.limit for level in gate.levels]
        found = [] if limits == [2, 2] else ["two levels with limit 2 each are needed"]
    else:
        found = _limit_problems(gate)
    if name == "nested" and any(x.rule == "base" and x.limit > 1 for x in gate.levels):
        found.append("a level with the rule base has the limit 1")
    size = prod(level.fanout for level in gate.levels)
    if size != gate.experts:
        found.append(f"the fanouts multiply to {size}, not to the {gate.experts} experts")
    return found


def _limit_problems(gate: Gate) -> list[str]:
    found, entered = [], 1
    for level in gate.levels:
        allowed = level.fanout * (entered if gate.shared_router else 1)
        if not 1 <= level.limit <= allowed:
            found.append(f"limit {level.limit} must lie between 1 and {allowed} parts")
        entered = level.limit if gate.shared_router else entered * level.limit
    if entered != gate.top_k:
        found.append(f"the levels lead to {entered} experts per token, top_k says {gate.top_k}")
    return found


def unknown(name: str, allowed: tuple[str, ...]) -> ModelError:
    """Return the error for a rule that no table has."""
    known = ", ".join(allowed)
    return ModelError(f"no gating rule '{name}'; there are {known}.{nearest(name, allowed)}")
