"""A layer whose tokens find their experts by products with one-hot masks, not by index."""

from dataclasses import replace

from moesim.hardware.device import Device
from moesim.model.architecture import MoeFfn
from moesim.model.one_hot import MaskProduct, Step
from moesim.model.operators import Compute, Operator
from moesim.moe.assignment import LayerLoad

LANES = 128
"""A TPU lays the last dimension of an array out over 128 lanes, so it fills whole ones (jax 0.10.2,
experimental/pallas/ops/tpu/splash_attention, NUM_LANES). That slots are the last dimension of the
masks in memory, as in the einsums of the code bases, is assumed: XLA may choose another order."""


def with_masks(
    operators: list[Operator], ffn: MoeFfn, load: LayerLoad, tokens: int, width: int, dtype: str
) -> list[Operator]:
    """Return a layer's operators, its permutations replaced by products with masks.

    `tokens` are those of the rank; where a routing group spans ranks each has its part of the mask.
    """
    size = max(1, min(load.group_tokens, tokens))

    def product(name: str, step: Step) -> MaskProduct:
        return MaskProduct(
            name=name, module="moe", input_from="moe", step=step, groups=-(-tokens // size),
            tokens=size, experts=ffn.num_experts, slots=load.padded_slots or 0, width=width,
            dtype=dtype,
        )  # fmt: skip

    found: list[Operator] = []
    for one in operators:
        if one.name == "permute":
            found.append(replace(product("count_places", "count"), count=ffn.top_k))
            found += [product("build_masks", "build"), product("pick_tokens", "pick")]
        elif one.name == "unpermute":
            found.append(product("put_back", "put"))
        else:
            found.append(one)
    return found


def laid_out(operator: Compute, device: Device) -> Compute:
    """Return `operator` with its masks as they lie in the memory of `device`."""
    if isinstance(operator, MaskProduct) and device.matrix_unit is not None:
        return replace(operator, mask_slots=-(-operator.slots // LANES) * LANES)
    return operator
