"""A kernel profile: how long operators take on one accelerator with one library, as fitted."""

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
    values: str
    """Thousandths, as whole numbers separated by spaces."""

    @model_validator(mode="after")
    def _check(self) -> "TableSpec":
        wanted = 1
        for axis in self.axes:
            wanted *= len(axis.knots)
        numbers = self.values.split()
        if len(numbers) != wanted:
            raise ValueError(f"the axes ask for {wanted} values, there are {len(numbers)}")
        if not all(number.lstrip("-").isdigit() for number in numbers):
            raise ValueError("values must be whole numbers separated by spaces")
        return self


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
