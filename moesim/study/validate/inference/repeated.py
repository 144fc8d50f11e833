"""Prompts that a load generator sends again and again, so that a prefix cache finds them.

inference-perf's shared-prefix data are a list of prompts, one for each user of each system prompt,
sent round and round (inference_perf/datagen/shared_prefix_datagen.py, from memory, unchecked). With
prefix caching an engine computes each of them once; later only what fills no whole block.
"""

import re
from collections.abc import Sequence

from moesim.study.validate.figures import number
from moesim.study.validate.inference.words import Said
from moesim.study.validate.skipped import SkippedError

BLOCK = 16
"""Tokens of a block with an id: those of vLLM's blocks."""

_MOST = 5_000_000
"""Blocks of different prompts that are kept at most."""


def distinct_prompts(said: Said) -> tuple[int, int] | None:
    """Return how many system prompts there are and how many users each has.

    None where a case does not say so, or caches no prefixes.
    """
    words = str(said.case.part("workload").get("shared_system_prompts") or "")
    found = re.fullmatch(
        r"([1-9]\d{0,5})(?: shared system prompts)? x ([1-9]\d{0,5})(?: users)?", words
    )
    if found is None or "prefix caching on" not in said.text("engine", "flags"):
        return None
    return int(found[1]), int(found[2])


def beginnings(said: Said, prompts: Sequence[int]) -> list[Sequence[int]] | None:
    """Return the ids of the blocks of each prompt; None where prompts do not repeat.

    The prompts are numbered round and round; those of a system prompt have its blocks in common.
    """
    many = distinct_prompts(said)
    if many is None:
        return None
    said.assume(f"{many[0] * many[1]} prompts sent round and round, found in the prefix cache")
    common = int(number(said.case.part("workload").get("prefix_tokens")) or 0) // BLOCK
    if min(len(prompts), many[0] * many[1]) * max(prompts, default=0) // BLOCK > _MOST:
        raise SkippedError(f"repeated prompts have more than {_MOST:,} blocks")
    kept: dict[tuple[int, int], Sequence[int]] = {}
    found = []
    for request, tokens in enumerate(prompts):
        place = (request % (many[0] * many[1]), tokens // BLOCK)
        if place not in kept:
            kept[place] = _ids(place, common, many)
        found.append(kept[place])
    return found


def _ids(place: tuple[int, int], common: int, many: tuple[int, int]) -> Sequence[int]:
    prompt, blocks = place
    stride = max(blocks, common) + 1
    shared = range((prompt % many[0]) * stride, (prompt % many[0]) * stride + min(common, blocks))
    first = (many[0] + prompt) * stride
    return (*shared, *range(first + len(shared), first + blocks))
