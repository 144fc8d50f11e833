"""Tokens that an engine guesses ahead and checks together."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from moesim.spec.base import Listed, Spec
from moesim.spec.quantities import Fraction


class SpeculativeSpec(Spec):
    """Speculative decoding: a step checks `draft_tokens` guesses and one token more.

    A step yields 1 + a + a^2 + ... + a^k = (1 - a^(k+1)) / (1 - a) tokens on average (Leviathan et
    al., arXiv 2211.17192, equation 1).
    """

    draft_tokens: Annotated[int, Field(ge=1, le=64)]
    """Guesses per step, k."""
    acceptance: Fraction | Listed[Fraction]
    """Probability a that a guess is accepted, given that those before it were; or, for each place,
    the share of steps that accept it (as vLLM reports acceptance per position)."""
    mtp: bool = False
    """Guess with the model's own module for multi-token prediction."""
    draft_model: str | None = None
    """Guess with a small model: its name, or the path of a config.json or of a YAML file."""

    @model_validator(mode="after")
    def _check(self) -> "SpeculativeSpec":
        if self.mtp == (self.draft_model is not None):
            raise ValueError("give one of mtp: true and draft_model, which makes the guesses")
        shares = self.acceptance
        if isinstance(shares, tuple):
            if len(shares) != self.draft_tokens:
                raise ValueError(f"acceptance by place needs {self.draft_tokens} shares")
            if any(later > earlier for earlier, later in pairwise(shares)):
                raise ValueError("acceptance by place cannot rise: a guess needs those before it")
        return self

    @property
    def expected(self) -> float:
        """Tokens that a step yields on average."""
        if isinstance(self.acceptance, tuple):
            return 1 + sum(self.acceptance)
        return sum(self.acceptance**place for place in range(self.draft_tokens + 1))
