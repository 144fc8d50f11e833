"""A kernel profile: how long operators take on one accelerator with one library, as fitted."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Listed, Spec

Positive = Annotated[float, Field(gt=0, strict=False)]
Error = Annotated[float, Field(ge=0, strict=False)]


class AxisSpec(Spec):
    """One direction of a residual table."""

    name: str
    """What is counted along it."""
    knots: Annotated[Listed[Annotated[float, Field(strict=False)]], Field(min_length=1)]
    """Where the table has values, in rising order."""


class TableSpec(Spec):
    """log(measured / physics) on a grid."""

    axes: Annotated[Listed[AxisSpec], Field(min_length=1, max_length=6)]
    """The directions; the last one varies fastest in `values`."""
    step: Annotated[int, Field(ge=1, le=100)] = 1
    """What the values count in, in thousandths."""
    values: str
    """Whole numbers, with spaces or signs between them."""

    @model_validator(mode="after")
    def _check(self) -> "TableSpec":
        wanted = 1
        for axis in self.axes:
            wanted *= len(axis.knots)
        numbers = whole_numbers(self.values)
        if len(numbers) != wanted:
            raise ValueError(f"the axes ask for {wanted} values, there are {len(numbers)}")
        return self


def whole_numbers(text: str) -> list[int]:
    """Return numbers such as `-3+12 7`; ValueError for another text."""
    if not _NUMBERS.fullmatch(text):
        raise ValueError("values must be whole numbers with spaces or signs between them")
    return [int(number) for number in _NUMBER.findall(text)]


_NUMBER = re.compile(r"[+-]?\d+")
_NUMBERS = re.compile(r"[+-]?\d+(?:(?: [+-]?|[+-])\d+)*")


class SitesSpec(Spec):
    """What is left at measured shapes, beyond physics and table."""

    names: Annotated[Listed[str], Field(min_length=1, max_length=6)]
    """Coordinates of a shape."""
    reach: Annotated[Listed[Positive], Field(min_length=1, max_length=6)]
    """Octaves along each of them after which a site counts 1/e."""
    knots: Annotated[Listed[Annotated[float, Field(strict=False)]], Field(min_length=2)]
    """log2 of the rows at which each site has a value."""
    places: str
    """Sizes of the first site, then of the second, … separated by spaces."""
    step: Annotated[int, Field(ge=1, le=100)] = 1
    """What the values count in, in thousandths."""
    values: str
    """Weights, the knots of a site together; whole numbers, with spaces or signs between them."""

    @model_validator(mode="after")
    def _check(self) -> "SitesSpec":
        sizes, values = self.places.split(), whole_numbers(self.values)
        if len(self.reach) != len(self.names):
            raise ValueError(f"{len(self.names)} names but {len(self.reach)} reaches")
        try:
            positive = all(0.0 < float(size) < _LARGEST for size in sizes)
        except ValueError:
            positive = False
        if not sizes or len(sizes) % len(self.names) or not positive:
            raise ValueError(f"places must be positive, {len(self.names)} numbers for each site")
        wanted = len(sizes) // len(self.names) * len(self.knots)
        if len(values) != wanted:
            raise ValueError(f"sites and knots ask for {wanted} values, there are {len(values)}")
        return self


_LARGEST = 1e12


class CurveSpec(Spec):
    """One operator at one dtype: parameters of the physics, and the table beside it."""

    family: str
    """The physics formula, by the name of its operator: gemm, moe, attention_prefill, …"""
    dtype: str
    """Number format and scaling, as in the measurement tables."""
    variant: str = ""
    """Kernel, mode or phase where several are told apart."""
    kind: Literal["fitted", "measured"] = "fitted"
    """fitted: to published measurements; measured: by `moesim calibrate` on this device."""
    parameters: dict[str, Positive]
    """Parameters of the physics formula."""
    table: TableSpec | None = None
    """Residuals; left out, the physics stands alone."""
    details: Annotated[Listed[TableSpec], Field(max_length=12)] = ()
    """Finer tables, each over a few directions, that add to it; left out, nothing is added."""
    sites: SitesSpec | None = None
    """What the table leaves at single shapes; left out, nothing is added to it."""
    rows: Annotated[int, Field(ge=1)]
    """Measured rows that the fit used."""
    median_error: Error
    """Median absolute relative error on rows kept out of the fit."""
    p90_error: Error
    """90th percentile of it."""
    source: str
    """Where the measurements come from: repository, commit, version of the library."""


class KernelsSpec(Spec):
    """What one library makes of one accelerator."""

    name: str
    """Accelerator and library: h100-sxm--trtllm."""
    accelerator: str
    """Name of the accelerator profile."""
    library: str
    """Name of the library: trtllm, sglang, vllm, nccl, deepep, torch, …"""
    version: str
    """Version of the library that was measured."""
    description: str = ""
    """What a reader should know before trusting it."""
    tables: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each measurement table that the fit read, by file name."""
    curves: Annotated[Listed[CurveSpec], Field(min_length=1)]
    """One per operator, dtype and variant."""
