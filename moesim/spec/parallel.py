"""How a model is cut over devices."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from moesim.spec.base import Listed, Spec
from moesim.spec.pipeline_text import pipeline_chunks
from moesim.spec.schedule_names import FOLDED, SPLIT, Schedule

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
    cp_comm: Literal["ring", "all_gather", "all_to_all"] = "ring"
    """How context parallel ranks come by each other's keys and values. ring: cp - 1 turns, beside
    attention; all_gather: all before it; all_to_all: heads are spread instead (Ulysses). Attention
    with a window or an index gathers instead of a ring."""
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
    schedule: Schedule = "1f1b"
    """Order of forward and backward passes on a stage; 1f1b with vpp above 1 is interleaved. zb_h1:
    weight gradients fill the bubbles; zb_h2: more forward passes ahead too, for twice the
    activations; zb_v: the same with two chunks per stage (vpp: 2) in a V and no more activations;
    dualpipe: micro-batches enter from both ends, every stage holds the weights of two; dualpipe_v:
    the same with two chunks per stage (vpp: 2) in a V."""
    layout: Annotated[str, Field(max_length=10_000)] | None = None
    """Which layers lie on which chunk, in Megatron-LM's notation: `"Et|(tt|)*30mL"` has E
    (embedding), t (layer), m (MTP module), L (logits), | between chunks, `(..)*n` to repeat. Left
    out: equal chunks; where one or two layers are missing for that, logits, or embedding and
    logits, take the place of a layer; else balanced by time."""
    rank_order: Annotated[str, Field(max_length=100)] = "tp-cp-ep-dp-pp"
    """How ranks are numbered over the machines, the fastest dimension first: each group lies inside
    a node or across by what stands before it. Experts take ep (and etp) in the place of cp. As in
    Megatron-LM, whose --use-tp-pp-dp-mapping is tp-cp-ep-pp-dp."""
    placement: (
        Annotated[Listed[Annotated[int, Field(ge=0, le=99_999)]], Field(max_length=100_000)] | None
    ) = None
    """Device of each rank, where rank r is not on device r: a permutation of the first n devices
    that repeats every n, such as [0, 4, 1, 5, 2, 6, 3, 7] in each node of 8. It applies to the
    ranks as `rank_order` numbers them; on a torus devices run along the last axis first."""
    dispatcher: Literal["alltoall", "allgather", "deepep", "hybridep"] = "alltoall"
    """How tokens travel to their experts: one copy per assignment, every token to every rank, or
    one copy per node and then per rank (deepep; hybridep: the same between nodes, at the rate of
    the link inside a scale-up domain)."""

    dispatch_dtype: Literal["activations", "fp8"] = "activations"
    """Type in which tokens travel to their experts: that of the activations, or fp8; results come
    back in the activations' type."""

    @model_validator(mode="after")
    def _check(self) -> "ParallelSpec":
        if self.vpp > 1 and self.pp == 1:
            raise ValueError("vpp above 1 needs pp above 1: there is no pipeline to interleave")
        if self.fsdp == 1 and not self.reshard_after_forward:
            raise ValueError("reshard_after_forward: false needs fsdp above 1: nothing is sharded")
        if self.fsdp > 1 and self.schedule in SPLIT:
            raise ValueError(f"schedule {self.schedule} with fsdp above 1 is not modelled")
        if self.schedule in FOLDED and self.vpp != 2:
            raise ValueError(f"{self.schedule} has two chunks per stage: give vpp: 2")
        if self.vpp > 1 and self.schedule not in {"1f1b", *FOLDED}:
            raise ValueError(
                f"vpp above 1 needs schedule 1f1b: {self.schedule} cuts the model into pp chunks"
            )
        chunks, positions = self.layout_chunks, self.pp * self.vpp
        if chunks is not None and self.pp == 1:
            raise ValueError("layout needs pp above 1: there is no pipeline to lay out")
        if chunks is not None and len(chunks) != positions:
            raise ValueError(
                f"layout has {len(chunks)} chunks; pp * vpp = {self.pp} * {self.vpp} = {positions}"
            )
        return self

    @field_validator("layout")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            pipeline_chunks(text)
        return text

    @field_validator("placement")
    @classmethod
    def _places_all(cls, placement: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if placement is not None and len(placement) < 2:
            raise ValueError("must list two devices or more; left out, rank r is on device r")
        if placement is not None and sorted(placement) != list(range(len(placement))):
            raise ValueError(
                f"must name each device from 0 to {len(placement) - 1} once, as many as it lists"
            )
        return placement

    @field_validator("rank_order")
    @classmethod
    def _orders_all(cls, text: str) -> str:
        if sorted(text.split("-")) != ["cp", "dp", "ep", "pp", "tp"]:
            raise ValueError(
                f"must name tp, cp, ep, dp and pp once each, joined by -, not '{text}': the "
                "default is tp-cp-ep-dp-pp"
            )
        return text

    @property
    def layout_chunks(self) -> tuple[str, ...] | None:
        """The letters of each chunk of `layout`; None where it is left out."""
        return None if self.layout is None else pipeline_chunks(self.layout)

    @property
    def expert_tp(self) -> int:
        """Tensor parallel degree inside an expert, resolved."""
        return self.tp if self.etp is None else self.etp
