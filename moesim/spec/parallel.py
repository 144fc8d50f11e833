"""How a model is cut over devices."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Spec

Degree = Annotated[int, Field(ge=1, le=100_000)]


class ParallelSpec(Spec):
    """Parallel degrees in Megatron's senses; data parallelism takes what is left of the devices."""

    tp: Degree = 1
    """Tensor parallel: ranks that share every matrix product of a layer."""
    pp: Degree = 1
    """Pipeline parallel: stages."""
    vpp: Degree = 1
    """Model chunks per stage; above 1 the schedule is interleaved."""
    cp: Degree = 1
    """Context parallel: ranks that share the tokens of one sequence."""
    ep: Degree = 1
    """Expert parallel: ranks over which the experts of a layer are spread."""
    etp: Degree | None = None
    """Tensor parallel inside an expert; left out it equals tp, as in Megatron-LM."""
    fsdp: Degree = 1
    """Data-parallel ranks over which weights, gradients and optimizer states are fully sharded
    (FSDP, ZeRO-3); 1 shards none of the weights (optimizer.distributed is ZeRO-1), fewer than all
    replicate the shard groups (HSDP). Context parallel ranks take part. training.overlap says
    whether gathers and reductions run beside compute."""
    reshard_after_forward: bool = True
    """With fsdp above 1: give up a layer's weights after its forward pass and gather them again
    for the backward pass; false keeps them, as ZeRO-2 does."""
    sequence_parallel: bool = True
    """With tp above 1: norms and residuals hold 1/tp of the tokens each."""
    schedule: Literal["1f1b", "gpipe"] = "1f1b"
    """Order of forward and backward passes on a stage; 1f1b with vpp above 1 is interleaved."""
    dispatcher: Literal["alltoall", "allgather", "deepep"] = "alltoall"
    """How tokens travel to their experts: one copy per assignment, every token to every rank, or
    one copy per node and then per rank."""

    dispatch_dtype: Literal["activations", "fp8"] = "activations"
    """Type in which tokens travel to their experts: that of the activations, or fp8; results come
    back in the activations' type."""

    @model_validator(mode="after")
    def _check(self) -> "ParallelSpec":
        if self.vpp > 1 and self.pp == 1:
            raise ValueError("vpp above 1 needs pp above 1: there is no pipeline to interleave")
        if self.vpp > 1 and self.schedule == "gpipe":
            raise ValueError("vpp above 1 needs schedule 1f1b: gpipe runs one chunk per stage")
        if self.fsdp == 1 and not self.reshard_after_forward:
            raise ValueError("reshard_after_forward: false needs fsdp above 1: nothing is sharded")
        return self

    @property
    def expert_tp(self) -> int:
        """Tensor parallel degree inside an expert, resolved."""
        return self.tp if self.etp is None else self.etp
