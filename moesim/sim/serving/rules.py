"""How an engine fills its iterations: limits, and what a prompt may do beside decoding."""

from dataclasses import dataclass
from typing import Literal

Batching = Literal["mixed", "prefill_first", "whole_prompts", "static"]
"""mixed: decoding first, chunks of prompts in what is left of the token budget (vLLM v1);
prefill_first: chunks of prompts alone, decoding only where none can be taken (SGLang);
whole_prompts: decoding first, prompts only whole (TensorRT-LLM without chunked context);
static: as many requests as there are places, the next only when all have finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRules:
    """What an engine allows."""

    batching: Batching = "mixed"
    max_sequences: int
    """Requests that have a place in the batch at the same time."""
    token_budget: int
    """Tokens that an iteration computes at most."""
    block_tokens: int = 16
    """Tokens in a block of the cache."""
    blocks: int
    """Blocks that the cache has."""
    balance_steps: int = 0
    """Steps for which prompts wait until all attention data parallel ranks have one."""
    reserve_output: bool = False
    """Whether a request is only taken when there is room for all tokens that it may put out, so
    that nobody is ever preempted (TensorRT-LLM, guaranteed no evict)."""
    max_model_tokens: int | None = None
    """Tokens of prompt and output together that a request may have at most."""
    prefix_caching: bool = True
    """Whether blocks of prompts are kept for requests that begin alike."""
    tokens_per_step: tuple[int, int] = (1, 1)
    """Tokens that a decode step yields per sequence, on average, as a fraction: more than one where
    guessed tokens are checked."""
    checked_tokens: int = 1
    """Tokens that a sequence computes in a decode step: one, and those guessed."""


def limits(rules: EngineRules) -> tuple[int, int]:
    """Return the tokens that a request may come to hold, and those of its prompt, at most.

    What is longer would wait for ever: a request must fit the cache with all that it may put out,
    and whole prompts the token budget.
    """
    held = rules.blocks * rules.block_tokens
    if rules.max_model_tokens is not None:
        held = min(held, rules.max_model_tokens)
    if rules.batching != "whole_prompts":
        return held, held
    return held, min(held, rules.token_budget)
