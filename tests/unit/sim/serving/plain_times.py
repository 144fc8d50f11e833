"""Iteration times that can be added up by hand."""

from collections.abc import Sequence

from moesim.cost.iteration import Chunk, Lines


class PlainTimes:
    """1000 + 3 per token + 11 per sequence + 7 per cached token + a product for each chunk."""

    def lines(self, sequences: int) -> Lines:
        """Return the decode step of so many sequences."""
        return Lines((0,), (self.common_ps(sequences, sequences),), (7,))

    def attention(self, sequences: int) -> Lines:
        """Return its attention alone."""
        del sequences
        return Lines((0,), (0,), (7,))

    def common_ps(self, tokens: int, sequences: int, everyone: int | None = None) -> int:
        """Return everything else."""
        del everyone
        return 1000 + 3 * tokens + 11 * sequences

    def chunks_ps(self, chunks: Sequence[Chunk]) -> int:
        """Return the attention of chunks."""
        return sum(tokens * (past + tokens) for tokens, past in chunks)

    def least_ps(self, sequences: int) -> int:
        """No host works beside this device."""
        return 0

    def mixed_ps(self, sequences: int, cached: int, chunks: Sequence[Chunk]) -> int:
        """Return an iteration with chunks."""
        tokens = sequences + sum(tokens for tokens, _ in chunks)
        common = self.common_ps(tokens, sequences + len(chunks))
        return common + self.chunks_ps(chunks) + (7 * cached if sequences else 0)
