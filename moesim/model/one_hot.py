"""Dispatch and combine as products with one-hot masks [tokens, experts, slots] of each group.

GShard (arXiv 2006.16668, Algorithm 2), Mesh TensorFlow (mesh_tensorflow 0.1.21, transformer/moe.py)
and MaxText's dense_matmul bring tokens into the buffers of experts, and back, by

expert_inputs[e, c, d] = sum over s of dispatch[s, e, c] x[s, d]
output[s, d] = sum over e, c of combine[s, e, c] y[e, c, d]

each 2 S E C d FLOP for a group of S tokens: per token in proportion to the slots of a whole group.
The mask of combine holds weights and has a gradient; that of dispatch has none. The place of a
token among those of its expert is a running sum over the group, for each choice of a token a
product of its mask [tokens, experts] with a triangle of ones,

place[s, e] = sum over r < s of chosen[r, e]

of 2 S S E FLOP (mesh_tensorflow 0.1.21, ops.py, cumsum, called once per choice by _switch_gating
and _top_2_gating); that jnp.cumsum of MaxText is as much work is assumed.
"""

from dataclasses import dataclass, replace
from typing import Literal

Step = Literal["count", "build", "pick", "put", "gradient", "fold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskProduct:
    """One step with the masks of a layer.

    count: the places of one choice of all tokens; build: both masks are written; pick: tokens into
    slots; put: slots into tokens; gradient: that of combine's mask; fold: it is read once more and
    summed into the gradients of the weights.
    """

    name: str
    module: str
    input_from: str
    step: Step
    groups: int
    tokens: int
    """Tokens of a group on this rank."""
    experts: int
    slots: int
    """Slots of an expert in a group."""
    width: int
    """Width of a row."""
    dtype: str
    mask_slots: int | None = None
    """Slots as they lie in the masks' memory; None: as many as there are."""
    count: int = 1

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds of one execution."""
        if self.step == "count":
            return self.choice_elements * self.tokens
        return 0.0 if self.step in ("build", "fold") else self.mask_elements * self.width

    @property
    def choice_elements(self) -> float:
        """Elements of the mask of one choice, tokens by experts."""
        return float(self.groups * self.tokens * self.experts)

    @property
    def mask_elements(self) -> float:
        """Elements of one mask."""
        slots = self.slots if self.mask_slots is None else self.mask_slots
        return float(self.groups * self.tokens * self.experts * slots)

    @property
    def token_elements(self) -> float:
        """Elements of the tokens' rows."""
        return float(self.groups * self.tokens * self.width)

    @property
    def slot_elements(self) -> float:
        """Elements of the slots' rows."""
        return float(self.groups * self.experts * self.slots * self.width)


def elements_read(one: MaskProduct) -> float:
    """Return the elements that one execution reads."""
    match one.step:
        case "count":
            return one.choice_elements
        case "build":
            return 0.0
        case "pick":
            return one.mask_elements + one.token_elements
        case "put":
            return one.mask_elements + one.slot_elements
        case "gradient":
            return one.token_elements + one.slot_elements
        case "fold":
            return one.mask_elements


def elements_written(one: MaskProduct) -> float:
    """Return the elements that one execution writes."""
    match one.step:
        case "count":
            return one.choice_elements
        case "build":
            return 2 * one.mask_elements
        case "pick":
            return one.slot_elements
        case "put":
            return one.token_elements
        case "gradient":
            return one.mask_elements
        case "fold":
            return 0.0


def mask_backward(one: MaskProduct) -> tuple[MaskProduct, ...]:
    """Return the steps of the backward pass of a forward step."""
    grads: dict[str, tuple[Step, ...]] = {
        "count": (),
        "build": ("fold",),
        "pick": ("put",),
        "put": ("pick", "gradient"),
    }
    return tuple(replace(one, name=f"{one.name}_grad", step=step) for step in grads[one.step])
