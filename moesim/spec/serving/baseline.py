"""The model to compare a served one with, on the same devices."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from moesim.spec.base import or_one
from moesim.spec.baseline import ComparedSpec, as_list
from moesim.spec.serving.parallel import ServingParallelSpec


class ServingBaselineSpec(ComparedSpec):
    """Another model under the same requests on the same devices: mostly a dense one."""

    parallel: ServingParallelSpec | None = None
    """Its layout; left out, the layout of the model, without expert parallelism."""


ServingBaselines = Annotated[
    tuple[ServingBaselineSpec, ...],
    Field(max_length=8, json_schema_extra=or_one),
    BeforeValidator(as_list),
]
"""One model to compare with, or several."""
