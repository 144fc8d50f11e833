"""How wide numbers are in a matrix product, and which peak of the chip they run at."""

from dataclasses import dataclass

from moesim.cost.curves import Chip


@dataclass(frozen=True, slots=True)
class NumberType:
    """One dtype of the measurement tables."""

    weight_bytes: float
    """Of one weight, with its share of the scales."""
    activation_bytes: float
    peaks: tuple[str, ...]
    """Names of the chip's peak, the first that it states counts."""
    quantises: bool = False
    """The time holds the conversion of bf16 activations."""
    streamed_bytes: float | None = None
    """Bytes per weight whose transfer takes as long as reading it, where decoding it is slower."""

    @property
    def read_bytes(self) -> float:
        """Bytes per weight that set the time to read it."""
        return self.weight_bytes if self.streamed_bytes is None else self.streamed_bytes


_MX = 1.0 / 32
"""One 8-bit scale for 32 numbers (OCP Microscaling Formats 1.0, section 5.3)."""
_NV = 1.0 / 16
"""One 8-bit scale for 16 numbers (NVFP4)."""
_FP8, _FP4, _INT8 = ("fp8", "int8", "bf16"), ("nvfp4", "fp4", "fp8", "bf16"), ("int8", "bf16")

NUMBER_TYPES = {
    "fp32": NumberType(4.0, 4.0, ("fp32", "tf32", "bf16")),
    "tf32": NumberType(4.0, 4.0, ("tf32", "bf16")),
    "bf16": NumberType(2.0, 2.0, ("bf16", "fp16")),
    "fp16": NumberType(2.0, 2.0, ("fp16", "bf16")),
    "fp8": NumberType(1.0, 1.0, _FP8),
    "fp8_tensor": NumberType(1.0, 1.0, _FP8, quantises=True),
    "fp8_tensor_static": NumberType(1.0, 1.0, _FP8),
    "fp8_block128": NumberType(1.0, 1.0 + 4.0 / 128, _FP8, quantises=True),
    "nvfp4": NumberType(0.5 + _NV, 0.5 + _NV, _FP4, quantises=True),
    "w4a16_mxfp4": NumberType(0.5 + _MX, 2.0, ("bf16",)),
    "w4a8_mxfp4_mxfp8": NumberType(0.5 + _MX, 1.0 + _MX, _FP8, quantises=True),
    "int8": NumberType(1.0, 1.0, _INT8),
    "int8_smoothquant": NumberType(1.0, 1.0, _INT8, quantises=True),
    "int8_weight_only": NumberType(1.0, 2.0, ("bf16", "fp16")),
    "int4_weight_only": NumberType(0.5, 2.0, ("bf16", "fp16")),
    "qmoe": NumberType(2.0 / 20.07, 2.0, ("bf16", "fp16"), streamed_bytes=2.0 / 1.35),
}
"""By the name that the measurement tables give them; qmoe has none: ternary weights in a dictionary
code, compressed 20.07 times in Switch-C (17.06 and 18.34 in smaller models; QMoE, arXiv 2310.16795,
table 6), decoded at best 35 % faster than bf16 is read (section 5.3)."""

OUTPUT_BYTES = 2.0
"""Of one element of a product: all of these libraries write bf16 or fp16."""


def peak_flop_per_s(chip: Chip, dtype: str) -> float:
    """Return the dense peak of `chip` for products in `dtype`.

    A chip that lacks a narrow type runs it at the next wider one: fp8 weights on an A100 are
    widened before they are multiplied.
    """
    for name in NUMBER_TYPES[dtype].peaks:
        if name in chip.peak_flop_per_s:
            return chip.peak_flop_per_s[name]
    raise KeyError(f"{chip.name} states no peak for {dtype}: {NUMBER_TYPES[dtype].peaks}")
