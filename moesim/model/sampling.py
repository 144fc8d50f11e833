"""Choosing the next token of each sequence from its logits, as passes over [rows, vocabulary].

All passes are bound by memory: a handful of operations per value. What each reads and writes is
assumed, of engines that run one kernel per step (convert, scale, sort, ...), probabilities and keys
in fp32 and places in 64 bits; no source for the kernels of a particular engine is at hand.
"""

from dataclasses import dataclass
from typing import Literal

from moesim.model.phases import Phase

SamplingMethod = Literal["greedy", "temperature", "sort", "rejection"]
"""greedy: the largest logit; temperature: one draw from all of them; sort: top-k and top-p by
sorting the vocabulary; rejection: top-k and top-p without a sort, drawing until a token is kept."""

_VALUE, _PLACE = 4.0, 8.0
"""Bytes of an fp32 probability, and of a place in the vocabulary."""

_RADIX_PASSES = 4
"""Passes of a radix sort over 32-bit keys, 8 bits at a time."""

REJECTION_ROUNDS = 2
"""Assumed: draws until a token is kept, where a scenario says nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The next token of each of `rows` sequences; `dtype` is that of the logits."""

    name: str
    module: str
    input_from: str
    rows: int
    vocab: int
    method: SamplingMethod
    dtype: str
    rounds: int = REJECTION_ROUNDS
    count: int = 1


def sampling_phases(operator: Sampling, logit_bytes: float) -> tuple[Phase, ...]:
    """Return the passes in order; `logit_bytes` is the size of one logit.

    With v = 4 bytes a value and i = 8 a place, bytes read and written per logit:

      greedy       argmax (logit, 0)
      temperature  scale (logit, v), softmax (2 v, v), draw (v, 0)
      sort         scale (logit, v), histogram (v, 0), 4 radix passes (v + i, v + i),
                   top-k mask (v, v), softmax (2 v, v), cumulative sum (v, v), top-p mask (2 v, v),
                   draw (v, 0), place (0, 0)
      rejection    scale (logit, v), softmax (2 v, v), `rounds` draws (v, 0)

    A softmax reads twice: once for maximum and sum, once for the probabilities. Of a chosen token
    only its place is read and one number written, for each row.
    """
    values = float(operator.rows * operator.vocab)
    passes: list[tuple[str, float, float]] = {
        "greedy": [("argmax", logit_bytes, 0.0)],
        "temperature": [_scale(logit_bytes), _SOFTMAX, _DRAW],
        "sort": [
            _scale(logit_bytes),
            *_SORT,
            _TOP_K,
            _SOFTMAX,
            *_TOP_P,
            _DRAW,
            ("place", 0.0, 0.0),
        ],
        "rejection": [_scale(logit_bytes), _SOFTMAX, *[_DRAW] * operator.rounds],
    }[operator.method]
    chosen = operator.rows * _PLACE
    ends = {"argmax": (0.0, chosen), "draw": (0.0, chosen), "place": (2 * chosen, chosen)}
    found = []
    for name, read, written in passes:
        more_read, more_written = ends.get(name, (0.0, 0.0))
        moved_out = values * written + more_written
        found.append(Phase(name, 0.0, values * read + more_read, moved_out))
    return tuple(found)


def _scale(logit_bytes: float) -> tuple[str, float, float]:
    """Divide by the temperature, on the way to fp32."""
    return "scale", logit_bytes, _VALUE


_SOFTMAX = ("softmax", 2 * _VALUE, _VALUE)
_DRAW = ("draw", _VALUE, 0.0)
_SORT = (
    ("histogram", _VALUE, 0.0),
    *[("radix", _VALUE + _PLACE, _VALUE + _PLACE)] * _RADIX_PASSES,
)
_TOP_K = ("top_k", _VALUE, _VALUE)
_TOP_P = (("cumulative_sum", _VALUE, _VALUE), ("top_p", 2 * _VALUE, _VALUE))
