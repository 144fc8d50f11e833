"""What a step's data takes to be ready, from storage or from whoever prepares it."""

_NARROW_VOCAB = 65_500


def stored_bytes_per_token(vocab_size: int) -> float:
    """Return the bytes of a token in a file of token numbers: 2 below 65,500 words, else 4.

    Source: Megatron-LM core/datasets/indexed_dataset.py, `DType.optimal_dtype` (from memory,
    unchecked).
    """
    return 2.0 if vocab_size < _NARROW_VOCAB else 4.0


def data_loading_s(
    tokens: float, token_bytes: float, storage_bytes_per_s: float | None, tokens_per_s: float | None
) -> float:
    """Return the seconds until the data of `tokens` is ready.

    t = max(tokens b / s, tokens / p): storage delivers s bytes/s, preparation p tokens/s, both for
    the whole job and beside each other; what is not given costs nothing.
    """
    read_s = tokens * token_bytes / storage_bytes_per_s if storage_bytes_per_s else 0.0
    prepared_s = tokens / tokens_per_s if tokens_per_s else 0.0
    return max(read_s, prepared_s)
