"""--moe-layer-freq: which layers have experts."""

import re
from dataclasses import dataclass

_PART = re.compile(r"\(?\[([01](?:,[01])*)\](?:\*(\d+))?\)?(?:\*(\d+))?")
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Pattern:
    """Layers with experts as moesim says them: none in the first, then the last of every n."""

    dense_first: int
    every: int
    shifted: bool = False
    """Whether Megatron-LM has them elsewhere: as many, but the first of every n."""


def moe_layers(text: str, layers: int) -> tuple[int, ...]:
    """Return 1 for each layer with experts and 0 for others.

    N: the layers 0, N, 2N and so on; else a sum of lists: "([0]*3+[1]*58)", "[0,1]*12".
    Source: Megatron-LM, core/models/gpt/gpt_layer_specs.py (from memory, unchecked).
    Raises ValueError in words for the user.
    """
    plain = re.sub(r"\s", "", text)
    if plain.isdigit() and int(plain) > 0:
        return tuple(int(i % int(plain) == 0) for i in range(layers))
    inner = plain[1:-1] if plain.startswith("(") and _encloses(plain) else plain
    found: list[int] = []
    for part in inner.split("+"):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"'{text}' is no whole number and no sum such as ([0]*3+[1]*58)")
        times = int(match[2] or 1) * int(match[3] or 1)
        if times > _MOST:
            raise ValueError(f"repeats a list {times:,} times; at most {_MOST:,}")
        found += [int(one) for one in match[1].split(",")] * times
    if len(found) != layers:
        raise ValueError(f"'{text}' has {len(found)} layers, --num-layers {layers}")
    return tuple(found)


def _encloses(text: str) -> bool:
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i == len(text) - 1
    return False


def pattern(has_experts: tuple[int, ...]) -> Pattern:
    """Return the layers with experts as two numbers.

    Raises ValueError where they follow no such rule.
    """
    layers = len(has_experts)
    if not any(has_experts):
        raise ValueError("leaves no layer with experts")
    for every in range(1, layers + 1):
        first = has_experts.index(1) - (every - 1)
        if first >= 0 and has_experts == _rule(first, every, layers):
            return Pattern(first, every)
        if layers % every == 0 and has_experts == _rule(0, every, layers)[::-1]:
            return Pattern(0, every, shifted=True)
    raise ValueError("follows no rule that moesim has: dense layers first, then one of every n")


def _rule(first: int, every: int, layers: int) -> tuple[int, ...]:
    return tuple(int(i >= first and (i - first) % every == every - 1) for i in range(layers))
