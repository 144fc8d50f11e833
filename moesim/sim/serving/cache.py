"""Blocks of the key-value cache: how many are in use, and how long decoding can go on."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Blocks:
    """Counts blocks of sequences that grow by a token per iteration.

    A sequence needs a block more in the iterations in which its cached tokens are a multiple of the
    block's: by its cached tokens less the number of the iteration it stays in one class of the
    remainder, so that many iterations are counted at once.
    """

    tokens: int
    """Tokens per block."""
    total: int
    used: int = 0
    classes: list[int] = field(init=False)
    """Decoding sequences, by cached tokens less number of the iteration, modulo `tokens`."""
    growing: int = 0
    """Decoding sequences."""

    def __post_init__(self) -> None:
        self.classes = [0] * self.tokens

    def needed(self, cached: int) -> int:
        """Return the blocks that hold `cached` tokens."""
        return -(-cached // self.tokens)

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.total - self.used

    def start(self, cached: int, iteration: int) -> None:
        """Let a sequence of `cached` tokens grow from this iteration on."""
        self.classes[(cached - iteration) % self.tokens] += 1
        self.growing += 1

    def stop(self, cached: int, iteration: int) -> None:
        """End the growth of a sequence that has `cached` tokens at this iteration."""
        self.classes[(cached - iteration) % self.tokens] -= 1
        self.growing -= 1

    def growth(self, iteration: int, steps: int) -> int:
        """Return the blocks that so many iterations take, this one the first."""
        size = self.tokens
        first = -iteration % size
        if steps == 1:
            return self.classes[first]
        rounds, rest = steps // size, steps % size
        total = rounds * self.growing
        if rest:  # from first downwards, and round
            classes = self.classes
            total += sum(classes[max(0, first - rest + 1) : first + 1])
            if rest > first + 1:
                total += sum(classes[first + 1 - rest :])
        return total

    def steps_that_fit(self, iteration: int, most: int) -> int:
        """Return how many iterations the free blocks last, `most` at most."""
        free = self.total - self.used
        if self.growing * (most // self.tokens + 1) <= free:
            return most
        if not self.growing:
            return most
        steps = min(most, free // self.growing * self.tokens)
        left = free - self.growth(iteration, steps)
        while steps < most:
            left -= self.classes[-(iteration + steps) % self.tokens]
            if left < 0:
                break
            steps += 1
        return steps
