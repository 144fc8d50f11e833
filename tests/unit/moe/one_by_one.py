"""Routers that place tokens one by one in plain Python, each as its code base writes it.

Written from the sources named beside each function; shares no code with moesim.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

Kept = set[tuple[int, int]]


@dataclass
class Case:
    """A small routing group: wants[token] lists experts, first choice first; -1 is no choice."""

    experts: int
    top_k: int
    factor: float
    wants: list[list[int]]
    weights: list[list[float]]
    lots: list[list[float]]
    """A number drawn for each assignment: the smaller, the earlier it is served."""
    padding: set[int] = field(default_factory=set)
    declined: Kept = field(default_factory=set)
    devices: int = 1
    spared: set[int] = field(default_factory=set)

    @property
    def tokens(self) -> int:
        """Tokens of the group, padding included."""
        return len(self.wants)

    def load(self, expert: int) -> int:
        """How many assignments an expert gets."""
        return sum(row.count(expert) for row in self.wants)


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _queue(case: Case, policy: str, choice: int) -> list[int]:
    """Tokens in the order in which a code base that places choice by choice looks at them."""
    order = list(range(case.tokens))
    if policy == "probs":  # batch-prioritised routing: by the largest gate of the token
        order.sort(key=lambda token: -case.weights[token][0])
    if policy == "random":
        order.sort(key=lambda token: case.lots[token][choice])
    return order


def _column(case: Case, policy: str, expert: int) -> list[tuple[int, int]]:
    """Assignments of an expert in the order in which a code base that sorts experts keeps them."""
    column = [
        (token, choice)
        for token in range(case.tokens)
        for choice in range(case.top_k)
        if case.wants[token][choice] == expert
    ]
    if policy == "probs":
        column.sort(key=lambda at: -case.weights[at[0]][at[1]])
    if policy == "random":
        column.sort(key=lambda at: case.lots[at[0]][at[1]])
    return column


def megatron(case: Case, policy: str) -> tuple[int, Kept]:
    """moe_utils.py get_capacity and apply_router_token_dropping: top-k of each expert's column."""
    num_tokens = case.tokens * case.top_k
    capacity = math.ceil((num_tokens / case.experts) * case.factor)
    kept: Kept = set()
    for expert in range(case.experts):
        kept.update(_column(case, policy, expert)[:capacity])
    return capacity, kept


def deepspeed(case: Case, policy: str) -> tuple[int, Kept]:
    """sharded_moe.py _capacity; top1gating and topkgating by column, top2gating by cumsum."""
    ratio, factor = _single(case.tokens / case.experts), _single(case.factor * case.top_k)
    capacity = max(4, math.ceil(_single(ratio * factor)))
    kept: Kept = set()
    if case.top_k != 2:
        for expert in range(case.experts):
            kept.update(_column(case, policy, expert)[:capacity])
        return capacity, kept
    locations: dict[tuple[int, int], int] = {}
    for choice in (0, 1):
        for expert in range(case.experts):
            seen = 0
            for token in _queue(case, policy, choice):
                if case.wants[token][choice] == expert:
                    locations[token, choice] = seen
                    seen += 1
    for token in range(case.tokens):  # locations2 += sum(mask1)
        second = case.wants[token][1]
        if second >= 0:
            locations[token, 1] += sum(row[0] == second for row in case.wants)
    return capacity, {at for at, location in locations.items() if location < capacity}


def tutel(case: Case, policy: str) -> tuple[int, Kept]:
    """fast_dispatch.py extract_critical: cumsum per choice on top of all earlier choices."""
    acc_base = [0] * case.experts
    locations: dict[tuple[int, int], int] = {}
    for choice in range(case.top_k):
        counter = list(acc_base)
        for token in _queue(case, policy, choice):
            expert = case.wants[token][choice]
            if expert >= 0:
                locations[token, choice] = counter[expert]
                counter[expert] += 1
        acc_base = counter
    samples_per_expert = (case.tokens + case.experts - 1) // case.experts
    if case.factor > 0:
        capacity = case.top_k * int(case.factor * samples_per_expert)
    else:
        capacity = max(locations.values(), default=-1) + 1
        if case.factor < 0:
            capacity = min(capacity, case.top_k * int(-case.factor * samples_per_expert))
    return capacity, {at for at, location in locations.items() if location < capacity}


def megablocks(case: Case, policy: str) -> tuple[int, Kept]:
    """moe.py: stable sort of the flattened choices by expert, the first of each bin are taken."""
    tokens_per_expert = case.top_k * case.tokens * 1 / case.experts
    capacity = int(case.factor * tokens_per_expert)
    if capacity == 0:
        capacity = max(case.load(expert) for expert in range(case.experts))
    kept: Kept = set()
    for expert in range(case.experts):
        kept.update(_column(case, policy, expert)[:capacity])
    return capacity, kept


def switch(case: Case, policy: str) -> tuple[int, Kept]:
    """mesh_tensorflow moe.py _switch_gating and _top_2_gating; padding has importance 0."""
    capacity = min(case.tokens, int((case.tokens * case.factor) / case.experts))
    capacity = max(capacity, 4)
    kept: Kept = set()
    mask_count = [0] * case.experts  # of the earlier choices that fit
    for choice in range(case.top_k):
        cumsum, fits = [0] * case.experts, [0] * case.experts
        for token in _queue(case, policy, choice):
            expert = case.wants[token][choice]
            if expert < 0 or token in case.padding:
                continue
            position_in_expert = cumsum[expert] + mask_count[expert]
            cumsum[expert] += 1
            if position_in_expert < capacity:
                kept.add((token, choice))
                fits[expert] += 1
        mask_count = [a + b for a, b in zip(mask_count, fits, strict=True)]
    return capacity, kept


def flaxformer(case: Case, policy: str) -> tuple[int, Kept]:
    """routing.py TokensChooseMaskedRouter: one cumsum over [choice, token]; moe_layers.py:175."""
    capacity = max(int(round(case.factor * case.tokens / case.experts)), 4)  # noqa: RUF046
    flat = [(token, j) for j in range(case.top_k) for token in _queue(case, policy, j)]
    token_priority, kept = [0] * case.experts, set()
    for token, choice in flat:
        expert = case.wants[token][choice]
        if expert < 0:
            continue
        if token_priority[expert] < capacity:
            kept.add((token, choice))
        token_priority[expert] += 1
    return capacity, kept


def gshard(case: Case, policy: str) -> tuple[int, Kept]:
    """Algorithm 1: first experts of all tokens, then second; the counter always advances."""
    capacity = math.floor(case.factor * case.top_k * case.tokens / case.experts)
    counter, kept = [0] * case.experts, set()
    for choice in range(case.top_k):
        for token in _queue(case, policy, choice):
            expert = case.wants[token][choice]
            if expert < 0:
                continue
            if counter[expert] < capacity and (token, choice) not in case.declined:
                kept.add((token, choice))
            counter[expert] += 1
    return capacity, kept


def fairseq(case: Case, policy: str) -> tuple[int, Kept]:
    """top1gate.py and top2gate.py: masks, padding taken out, cumsum, second after all first."""
    if case.top_k == 1:
        capacity = int(case.factor * math.ceil(case.tokens / case.experts))
    else:
        capacity = 2 * math.ceil(case.tokens / case.experts)
    masks = [
        [
            {
                token
                for token in range(case.tokens)
                if case.wants[token][choice] == expert and token not in case.padding
            }
            for expert in range(case.experts)
        ]
        for choice in range(case.top_k)
    ]
    kept: Kept = set()
    for choice, mask in enumerate(masks):
        for expert, members in enumerate(mask):
            before = sum(len(masks[earlier][expert]) for earlier in range(choice))
            line = [token for token in _queue(case, policy, choice) if token in members]
            kept.update(
                (token, choice) for place, token in enumerate(line) if place + before < capacity
            )
    return capacity, kept


def deepseek_v2(case: Case, policy: str) -> tuple[int, Kept]:
    """Report section 2.2.4: drop the lowest affinity on a device until its budget is reached.

    By another policy the last in the queue goes first.
    """
    worth: dict[str, Callable[[tuple[int, int]], float]] = {
        "probs": lambda at: case.weights[at[0]][at[1]],
        "position": lambda at: -(at[0] * case.top_k + at[1]),
        "random": lambda at: -case.lots[at[0]][at[1]],
    }
    budget = math.floor(case.factor * case.top_k * case.tokens / case.devices)
    local = case.experts // case.devices
    kept: Kept = set()
    for device in range(case.devices):
        here = [
            (token, choice)
            for token in range(case.tokens)
            for choice in range(case.top_k)
            if case.wants[token][choice] >= 0 and case.wants[token][choice] // local == device
        ]
        while len(here) > budget:
            droppable = [at for at in here if at[0] not in case.spared]
            if not droppable:
                break
            here.remove(min(droppable, key=worth[policy]))
        kept.update(here)
    return budget, kept


ROUTERS: dict[str, Callable[[Case, str], tuple[int, Kept]]] = {
    "megatron": megatron,
    "deepspeed": deepspeed,
    "tutel": tutel,
    "megablocks": megablocks,
    "switch": switch,
    "flaxformer": flaxformer,
    "gshard": gshard,
    "fairseq": fairseq,
    "deepseek_v2": deepseek_v2,
}
