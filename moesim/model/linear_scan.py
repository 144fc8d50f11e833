"""Linear attention as its kernels run it: chunk by chunk over a sequence, or token by token.

A head's state S is [key_dim, value_dim]. With d and v for these widths and C tokens in a chunk, a
chunk of the gated delta rule needs, with a multiply-add counting 2,

  solve   K K^T: 2 C^2 d, inverse of a unit triangle: C^3 / 3, W = T K: 2 C^2 d, U = T V: 2 C^2 v
  state   U - W S: 2 C d v, S + K^T (U - W S): 2 C d v
  output  Q S: 2 C d v, Q K^T: 2 C^2 d, (Q K^T) (U - W S): 2 C^2 v

and linear attention with a decay per head (lightning) has no solve and one product fewer:

  state   S + K^T V: 2 C d v
  output  Q S: 2 C d v, Q K^T: 2 C^2 d, (Q K^T) V: 2 C^2 v

Sources: DeltaNet in chunks, arXiv 2406.06484, section 3 (WY form with its triangular inverse);
Gated DeltaNet, arXiv 2412.06464, section 3.3; Lightning Attention-2, arXiv 2401.04658, section 3.
The phases are taken to be kernels of their own, which hand their results on through memory.
"""

from moesim.model.operators import DTYPE_BYTES, LinearAttentionCore
from moesim.model.phases import Phase

STATE_BYTES = 4.0
"""Bytes of an element of the recurrent state: "mamba_ssm_dtype": "float32" in the config.json of
Qwen3.5-35B-A3B."""


def scan_phases(operator: LinearAttentionCore) -> tuple[Phase, ...]:
    """Return the kernels of one execution, backward ones where the operator is a backward pass.

    One token per sequence is the recurrent form, as while decoding: every state is read and
    written. Anything longer goes by chunks.
    """
    if operator.tokens == operator.sequences and not operator.backward:
        return (_recurrent(operator),)
    forward = _chunked(operator)
    return (*forward[:-1], *_gradients(operator, forward)) if operator.backward else forward


def _recurrent(operator: LinearAttentionCore) -> Phase:
    """Decay, correct, add and read the state: `products` state-sized products per token.

    bytes = 2 S per head and sequence, and the token's own query, key, value and output.
    """
    width, value = operator.key_dim, operator.value_dim
    updates = float(operator.tokens * operator.heads)
    size, states = DTYPE_BYTES[operator.dtype], updates * width * value * STATE_BYTES
    return Phase(
        "recurrent", 2.0 * operator.products * updates * width * value,
        states + updates * (2 * width + value) * size, states + updates * value * size,
    )  # fmt: skip


def _chunked(operator: LinearAttentionCore) -> tuple[Phase, ...]:
    """Return solve (gated delta rule only), state and output.

    Bytes per token and head: solve reads key and value and writes W and U; state reads key, W and
    U (or key and value) and writes U - W S; output reads query, key and these, and writes the
    output. Each chunk's state is written once by `state` and read once by `output`.
    """
    c, d, v = float(chunk_tokens(operator)), operator.key_dim, operator.value_dim
    updates, size = float(operator.tokens * operator.heads), DTYPE_BYTES[operator.dtype]
    handed = d * v / c * size
    delta = operator.products > 2
    corrected = v if delta else 0

    def phase(name: str, flop: float, read: float, written: float) -> Phase:
        return Phase(name, updates * flop, updates * read * size, updates * written * size)

    solve = phase("solve", 2 * c * (2 * d + v) + c * c / 3, d + v, d + v)
    read = 2 * d + v if delta else d + v
    state = phase("state", (4.0 if delta else 2.0) * d * v, read, corrected)
    output = phase("output", 2.0 * d * v + 2 * c * (d + v), 2 * d + v, v)
    state = Phase(state.name, state.flop, state.read_bytes, state.written_bytes + updates * handed)
    output = Phase(
        output.name, output.flop, output.read_bytes + updates * handed, output.written_bytes
    )
    return (solve, state, output) if delta else (state, output)


def _gradients(operator: LinearAttentionCore, forward: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Return the gradients of each forward phase, the last one first.

    Two products for each product; the inverse T of a triangle has T^T dT T^T, 4 C^3. A phase reads
    what it read forward and the gradient of what it wrote, and writes gradients of what it read.
    What lies between the phases is computed once more before, not kept: assumed.
    """
    c, chunks = float(chunk_tokens(operator)), operator.tokens / chunk_tokens(operator)
    found = []
    for phase in reversed(forward):
        flop = 2.0 * phase.flop
        if phase.name == "solve":
            flop += operator.heads * chunks * (4.0 - 2.0 / 3.0) * c**3
        read = phase.read_bytes + phase.written_bytes
        found.append(Phase(f"{phase.name}_grad", flop, read, phase.read_bytes))
    return tuple(found)


def chunk_tokens(operator: LinearAttentionCore) -> int:
    """Return the tokens of a chunk: those of the operator, or the whole of a shorter sequence."""
    return min(operator.chunk, max(1, operator.tokens // operator.sequences))
