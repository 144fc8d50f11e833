"""How tokens are routed: from Megatron-LM's router and capacity arguments to `routing`."""

from moesim.spec.megatron.reading import Reading
from moesim.spec.megatron.silent import REASONS

_CAPACITY, _PAD = "moe-expert-capacity-factor", "moe-pad-expert-input-to-capacity"
_POLICY, _BALANCING = "moe-token-drop-policy", "moe-router-load-balancing-type"
_PADDING = ("moe-router-padding-for-fp8", "moe-router-padding-for-quantization")
_BALANCINGS = ("aux_loss", "seq_aux_loss", "global_aux_loss", "sinkhorn", "quantile_balancing",
               "none")  # fmt: skip
FORCE = "moe-router-force-load-balancing"


def read_routes(reading: Reading, natural_cv: float) -> None:
    """Read loads, capacity and padding.

    `natural_cv` is the spread of the experts' loads that a trained router shows: Megatron-LM routes
    by the router unless it is told to force balance.
    """
    if not reading.has("num-experts"):
        for name in (_CAPACITY, _PAD, _POLICY, FORCE, *_PADDING):
            reading.say(name, "no effect without --num-experts")
        return
    if reading.has(FORCE):
        reading.put("routing.load.law", "even", FORCE)
    else:
        reading.put("routing.load.law", "dirichlet", FORCE)
        reading.put("routing.load.cv", round(natural_cv, 3),
                    why="spread of a trained router's loads; "
                    "measured in Mixtral-8x7B, OLMoE and DeepSeek-V2-Lite")  # fmt: skip
    _read_capacity(reading)
    _read_padding(reading)


def _read_capacity(reading: Reading) -> None:
    balancing = reading.word(_BALANCING, "aux_loss", _BALANCINGS)
    reading.say(_BALANCING, REASONS[_BALANCING])
    factor = reading.real(_CAPACITY, -1.0)
    if factor <= 0:
        reading.say(_CAPACITY, "no effect: below 0 nothing is dropped")
        reading.say(_POLICY, f"no effect without --{_CAPACITY}")
        if reading.has(_PAD):
            reading.wrong(_PAD, f"needs --{_CAPACITY}")
        return
    if balancing == "sinkhorn":
        reading.wrong(_CAPACITY, "needs a balancing type of aux_loss, seq_aux_loss or none")
    if reading.word("moe-token-dispatcher-type", "allgather") == "allgather":
        reading.wrong(_CAPACITY, "needs --moe-token-dispatcher-type alltoall or flex")
    reading.put("routing.capacity.factor", factor, _CAPACITY)
    reading.put(
        "routing.capacity.formula", "megatron", why="ceil(tokens * top-k / experts * factor)"
    )
    policy = reading.word(_POLICY, "probs", ("probs", "position"))
    reading.put("routing.capacity.policy", policy, _POLICY)
    reading.put("routing.capacity.pad", reading.has(_PAD), _PAD)


def _read_padding(reading: Reading) -> None:
    """Rows of an expert in multiples of 16 for fp8, of 32 for mxfp8.

    Source: Megatron-LM, get_fp8_align_size (from memory, unchecked).
    """
    if not reading.has(*_PADDING):
        return
    if not reading.has("fp8-format"):
        for name in _PADDING:
            reading.say(name, "no effect without --fp8-format")
        return
    if reading.has(_PAD):
        for name in _PADDING:
            reading.say(name, "no effect: buffers are padded to the capacity")
        return
    rows = 32 if reading.word("fp8-recipe", "delayed") == "mxfp8" else 16
    reading.put("routing.block_rows", rows, *_PADDING)
