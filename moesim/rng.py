"""One seed, any number of independent named streams of random numbers.

A stream depends on the seed and its own name only, so adding another stream (a layer, a metric,
a request class) leaves the draws of all others unchanged.
"""

import hashlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator called `name`: Philox keyed by the seed and the name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
