"""Reads which layers lie on which pipeline chunk from Megatron-LM's short notation.

`E` is the embedding, `t` a layer, `m` a multi-token-prediction module, `L` logits and loss; `|`
ends a chunk, `x*3` and `(..)*3` repeat, commas and blanks are for the eye. "Et|(tt|)*30mL" is 32
chunks and 61 layers. Source: Megatron-LM, core/transformer/pipeline_parallel_layer_layout.py
(--pipeline-model-parallel-layout).
"""

import re

_GROUP = re.compile(r"\(([^()]*)\)\*(\d+)")
_LETTER = re.compile(r"([EtmL|])\*(\d+)")
_MAX_CHUNKS = 10_000


def pipeline_chunks(text: str) -> tuple[str, ...]:
    """Return the letters of each chunk in the order of the network.

    Raises ValueError with what is allowed where `text` is no such notation.
    """
    plain = re.sub(r"[,\s]", "", text)
    while (repeated := _GROUP.search(plain) or _LETTER.search(plain)) is not None:
        times = int(repeated[2])
        if times * len(repeated[1]) > _MAX_CHUNKS:
            raise ValueError(f"repeats '{repeated[1]}' {times:,} times; at most {_MAX_CHUNKS:,}")
        plain = plain[: repeated.start()] + repeated[1] * times + plain[repeated.end() :]
    wrong = re.search(r"[^EtmL|]", plain)
    if wrong is not None:
        raise ValueError(
            f"'{wrong[0]}' has no meaning there. Allowed: E (embedding), t (layer), m (MTP "
            "module), L (logits), | between chunks, x*n and (..)*n to repeat"
        )
    if re.fullmatch(r"E[t|]*m*L", plain) is None:
        raise ValueError(
            "must begin with E (embedding), then the t (layers), and end with L (logits), MTP "
            'modules m before L in the same chunk: "Et|(tt|)*30mL"'
        )
    return tuple(plain.split("|"))
