"""Conversations: several requests, each of which begins with all that was said before."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Spec
from moesim.spec.quantities import Seconds
from moesim.spec.serving.lengths import Lengths, LengthsSpec, TokenCount


class SessionsSpec(Spec):
    """Requests as turns of conversations; the workload's `prompt` is what a turn adds.

    A turn's prompt is the conversation so far, answers included, and the new tokens.
    """

    turns: Lengths = LengthsSpec(law="fixed", mean=1.0)
    """Turns of a conversation."""
    think: Literal["fixed", "exponential"] = "fixed"
    """Whether the pause between an answer and the next turn is always `think_mean`, or
    exponential with that mean."""
    think_mean: Seconds = 0.0
    """The pause on average, such as `10 s`."""
    shared_prefix: Annotated[int, Field(ge=0, le=10**7)] = 0
    """Tokens that conversations have in common at their beginning, such as a system prompt; they
    come on top of the first turn's prompt."""
    prefixes: Annotated[int, Field(ge=1, le=10**6)] = 1
    """How many different such beginnings there are; conversations take them in turn."""
    longest: TokenCount | None = None
    """A conversation ends before the turn whose prompt and output would be longer than this."""

    @model_validator(mode="after")
    def _check(self) -> "SessionsSpec":
        if self.prefixes > 1 and not self.shared_prefix:
            raise ValueError("prefixes needs shared_prefix, the tokens that they have")
        if self.think == "exponential" and not self.think_mean:
            raise ValueError("think exponential needs think_mean above 0 s")
        return self
