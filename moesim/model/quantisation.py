"""Casts around fp8 products: what recipes of Transformer Engine read and write between them.

Each product needs its input forward and the gradient of its output backward as fp8. Its weight
gradient sums over rows, so it reads both along the other direction: block scales must be made anew
for that, and matrix units that take rows only (Hopper) need a transposed copy.

- delayed: the scale is that of earlier steps; one pass reads 2 bytes and writes 1.
- tensorwise (current scaling): a pass for the largest value, 2 bytes read, then the cast.
- mxfp8: one pass writes both directions, each with a scale of 1 byte per 32 values.
- blockwise: both directions, with a scale of 4 bytes per 128 values.

Sources: Transformer Engine, docs/examples/fp8_primer.ipynb, and common/recipe; OCP Microscaling
Formats v1.0, table 1; DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3.2. Assumed:
inputs that are gathered over tensor-parallel ranks are cast before, and nothing is fused with the
norm or the activation ahead.
"""

from dataclasses import dataclass
from typing import Literal

from moesim.model.operators import Gemm, GroupedGemm, Operator, Pointwise

Recipe = Literal["delayed", "tensorwise", "mxfp8", "blockwise"]

_WRITTEN = {"delayed": 1.0, "tensorwise": 1.0, "mxfp8": 2 * 33 / 32, "blockwise": 2 * 132 / 128}
"""Bytes per value that a cast writes, both directions where scales are blocks."""

_READ = 2.0
"""Bytes of a value before the cast."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A recipe, and whether products need transposed copies for their weight gradients."""

    recipe: Recipe
    transposed: bool

    @property
    def written_bytes(self) -> float:
        """Bytes that the cast of one value writes."""
        scaled_by_tensor = self.recipe in ("delayed", "tensorwise")
        return _WRITTEN[self.recipe] + (1.0 if self.transposed and scaled_by_tensor else 0.0)

    @property
    def passes_bytes(self) -> float:
        """Bytes that are read and written for one value in all."""
        return (2 if self.recipe == "tensorwise" else 1) * _READ + self.written_bytes


def with_casts(operators: list[Operator], rule: Quantisation | None) -> list[Operator]:
    """Return `operators` with the casts that stand before each fp8 product."""
    if rule is None:
        return operators
    found: list[Operator] = []
    for operator in operators:
        if isinstance(operator, Gemm | GroupedGemm) and operator.dtype == "fp8":
            found += _casts(operator, rule)
        found.append(operator)
    return found


def _casts(product: Gemm | GroupedGemm, rule: Quantisation) -> list[Pointwise]:
    rows, share = _rows(product)
    given, back = rows * product.k * share, rows * product.n
    written = rule.written_bytes / _READ
    passes = [("cast", written)]
    if rule.recipe == "tensorwise":
        passes.insert(0, ("amax", 0.0))
    return [
        Pointwise(
            name=f"{product.name}_{name}", module=product.module, input_from=product.input_from,
            rows=rows, elements_read=given, elements_written=given * part, elements_saved=0.0,
            dtype="bf16", gradient=(back, back * part),
        )
        for name, part in passes
        if rows
    ]  # fmt: skip


def _rows(product: Gemm | GroupedGemm) -> tuple[float, float]:
    """Return the rows of the input, and the share of them that this rank casts itself."""
    if isinstance(product, GroupedGemm):
        return float(sum(product.rows)), 1.0
    return float(product.m), product.input_share or 1.0
