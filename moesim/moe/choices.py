"""Which experts tokens want, token by token: what a router hands to dispatch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Choices:
    """Which experts each token wants: first choice first."""

    experts: NDArray[np.int64]
    """[tokens, k]; -1 where a token has no such choice."""
    weights: NDArray[np.float64]
    """[tokens, k] gate weights as the router normalises them; 0 where none."""
