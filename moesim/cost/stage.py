"""Seconds of everything a pipeline stage does in a training step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypedDict

from moesim.cost.exchange_overlap import beside_each_other, beside_shared, one_after_the_other
from moesim.cost.gradient_buffers import buffer_passes_s
from moesim.cost.host import Pace, host_parts, pace
from moesim.cost.offload import copied_out, copies_s, fetched
from moesim.cost.optimizer import OptimizerRule, norm_s, update_s
from moesim.cost.parameters import StageParams, copies_embedding, end_params, stage_params
from moesim.cost.pipeline import Chunk
from moesim.cost.pricing import Machine, price, transfer
from moesim.cost.recomputation import again
from moesim.cost.ring import beside_attention
from moesim.cost.sharding import (
    ShardedPass,
    UnitTimes,
    sharded_backward,
    sharded_forward,
    unit_times,
)
from moesim.cost.tensor_overlap import beside_products
from moesim.cost.times import Known, Part, PassCost, StageCost, pass_cost
from moesim.cost.two_streams import Interference, interference
from moesim.cost.unfused_update import further_passes_s
from moesim.cost.work import Block, Job, Loads, blocks
from moesim.hardware.device import host_link_bytes_per_s
from moesim.model.backward import backward
from moesim.model.one_hot import MaskProduct
from moesim.model.operators import Collective, CollectiveKind, Exchange, Operator
from moesim.model.parameters import embedding_params
from moesim.model.shapes import Shard, sequence_shard_tokens
from moesim.spec.schedule_names import FOLDED, PAIRED, SPLIT

PARTS = {
    "layernorm": "norms",
    "qkv": "attention projections",
    "mla_up_proj": "attention projections",
    "proj": "attention projections",
    "core_attn": "attention",
    "mlp": "dense FFN",
    "shared": "shared experts",
    "router": "router",
    "moe": "experts",
    "moe_act": "experts",
    "embedding": "embedding",
    "logits": "logits",
    "mtp": "MTP projection",
    "sampling": "sampling",
}
"""The names under which reports show what a module computes."""

TRANSFERS = {
    "tp": "tensor parallel",
    "cp": "context parallel",
    "etp": "expert tensor parallel",
    "pp": "pipeline",
}
"""The names under which reports show the transfers of a parallel group."""


class _Split(TypedDict):
    """The two halves of the backward passes, by the names that StageCost gives them."""

    inputs: tuple[PassCost, ...]
    weights: tuple[PassCost, ...]


def stage_cost(job: Job, stage: list[Chunk], loads: Loads, on: Machine) -> StageCost:
    """Return how long everything takes that one rank of a stage does."""
    work = [blocks(job, chunk, loads) for chunk in stage]
    beside = [_beside(job, chunk, found, on) for chunk, found in zip(stage, work, strict=True)]
    params = stage_params(job.architecture, stage, job.shard)
    rule = job.optimizer
    reduce_s, gather_s = between_steps_s(params, rule, on)
    pairs = tuple(zip(work, beside, strict=True))
    forward = tuple(forward_pass(found, on, also) for found, also in pairs)
    backward = tuple(backward_pass(found, on, job.recompute, also) for found, also in pairs)
    return StageCost(
        forward=forward,
        backward=backward,
        joint=joint_passes(forward, backward, on, job.exchange_overlap == "batch"),
        **_split(job, pairs, on),
        send_s=send_s(job, on),
        reduce_s=reduce_s,
        gather_s=gather_s,
        update_s=clipped_update_s(params, job, on),
        embedding_s=embedding_s(job, stage, on),
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What else runs while a chunk does: copies to the host, gathers and scatters of its units."""

    copies: list[float] | None = None
    cut: ShardedPass | None = None
    shared: bool = False
    """Whether shared experts run while tokens are on their way."""
    delayed: bool = False
    """Whether exchanges of gradients go before the gradients of a layer's weights."""


_NOTHING = Beside()

Paced = tuple[list[Part], Pace]
"""What a block of a pass does, and how fast host and device are in it."""


def _beside(job: Job, chunk: Chunk, found: list[Block], on: Machine) -> Beside:
    copies = None
    if job.offload_layers:
        rate = host_link_bytes_per_s(on.device)
        copies = copies_s(found, job.offload_layers, job.recompute, rate)
    return replace(beside_exchanges(job, on), copies=copies, cut=_cut(job, chunk, found, on))


def beside_exchanges(job: Job, on: Machine) -> Beside:
    """Return what runs beside exchanges in every chunk."""
    # DualPipe splits the backward passes of its pairs too (arXiv 2412.19437, section 3.2.1)
    delayed = job.delayed_weights or on.layout.schedule in PAIRED
    return Beside(shared=job.exchange_overlap == "shared_expert", delayed=delayed)


def _cut(job: Job, chunk: Chunk, found: list[Block], on: Machine) -> ShardedPass | None:
    """Return the units that are gathered and scattered while a chunk runs; None without any."""
    if on.layout.fsdp is None:
        return None
    rule = job.optimizer

    def over(kind: CollectiveKind, payload_bytes: float, group: str) -> Known:
        return transfer(kind, payload_bytes, on.networks[group], on)

    def times(params: StageParams) -> UnitTimes:
        return unit_times(params, rule.gathered_bytes, rule.gradient_bytes, over)

    known = {id(block): times(block.params) for block in {id(b): b for b in found}.values()}
    return ShardedPass(
        rule=on.layout.fsdp,
        root=times(end_params(job.architecture, chunk, job.shard)),
        units=tuple(known[id(block)] for block in found),
        stream="scale-out" if on.networks["fsdp"].domains > 1 else "scale-up",
        rate=on.software.overlapped_fraction,
        taken=interference(on.device, on.software).taken,
    )


def forward_pass(found: list[Block], on: Machine, beside: Beside = _NOTHING) -> PassCost:
    """Return the forward pass of one micro-batch through these blocks."""
    known = {
        id(block): paced_forward(block, on, beside) for block in {id(b): b for b in found}.values()
    }
    paced = [known[id(block)] for block in found]
    parts = _with_host(paced, on)
    layers = sum(block.is_layer for block in found)
    if beside.copies:
        parts = copied_out(parts, beside.copies)
    cut = beside.cut
    whole = sharded_forward(parts, cut) if cut else list(chain(*parts))
    return pass_cost(whole, layers, sum(one.host_s for _, one in paced))


def backward_pass(
    found: list[Block], on: Machine, recompute: tuple[str, ...], beside: Beside = _NOTHING,
    *, weights: bool | None = None,
) -> PassCost:  # fmt: skip
    """Return the backward pass, with what is computed again before each block's gradients.

    `weights`: only the gradients of weights, or all but those.
    """
    cache: dict[int, Paced] = {}
    for block in found:
        if id(block) not in cache:
            cache[id(block)] = paced_backward(block, on, recompute, beside, weights=weights)
    paced = [cache[id(block)] for block in reversed(found)]
    parts = _with_host(paced, on)
    layers = sum(block.is_layer for block in found)
    if beside.copies:
        parts = fetched(parts, beside.copies[::-1])
    cut = beside.cut
    whole = sharded_backward(parts, cut) if cut else list(chain(*parts))
    return pass_cost(whole, layers, sum(one.host_s for _, one in paced))


def _with_shared(parts: list[Part], on: Machine, beside: Beside) -> list[Part]:
    return beside_shared(parts, cost_beside(on)) if beside.shared else parts


def cost_beside(on: Machine) -> Interference:
    """Return what the exchanges of a layout and compute beside them cost each other."""
    return interference(on.device, on.software, on.layout.dispatcher)


def joint_passes(
    forward: tuple[PassCost, ...], backward: tuple[PassCost, ...], on: Machine, overlap: bool
) -> tuple[tuple[PassCost, ...], ...]:
    """Return each forward pass with each backward pass of another micro-batch beside it.

    None where no schedule pairs them; one after the other where pairs do not overlap.
    """
    if not overlap and on.layout.schedule not in PAIRED:
        return ()
    cost = cost_beside(on)
    return tuple(
        tuple(
            beside_each_other(one, two, cost) if overlap else one_after_the_other(one, two)
            for two in backward
        )
        for one in forward
    )


def _split(job: Job, work: tuple[tuple[list[Block], Beside], ...], on: Machine) -> _Split:
    """Return the backward passes in two, where the schedule runs weight gradients apart."""
    if on.layout.schedule not in SPLIT:
        return {"inputs": (), "weights": ()}
    return {
        "inputs": tuple(
            backward_pass(found, on, job.recompute, beside, weights=False) for found, beside in work
        ),
        "weights": tuple(backward_pass(found, on, (), weights=True) for found, _ in work),
    }


def paced_backward(
    block: Block, on: Machine, recompute: tuple[str, ...], beside: Beside = _NOTHING,
    *, weights: bool | None = None,
) -> Paced:  # fmt: skip
    """Return what a block's backward pass does: what is computed again, then the gradients."""
    repeated = again(block.operators, recompute) if block.is_layer else []
    grads = [
        grad
        for op in reversed(block.operators)
        for grad in backward(op)
        if weights is None or grad.name.endswith("_wgrad") is weights
    ]
    delayed = beside.delayed and block.is_layer
    found = [
        *(Part(p.stream, "recomputation" if p.stream == "compute" else p.name, p.seconds)
          for p in _parts(repeated, on, block.skew)),
        *_with_shared(_parts(grads, on, block.skew, delayed=delayed), on, beside),
    ]  # fmt: skip
    stops = block.dropless and any(isinstance(one, Exchange) for one in repeated)
    device_s = sum(part.seconds for part in found)
    return found, pace([*repeated, *grads], device_s, int(stops), on.software)


def paced_forward(block: Block, on: Machine, beside: Beside = _NOTHING) -> Paced:
    """Return what a block's forward pass does."""
    found = _with_shared(_parts(block.operators, on, block.skew), on, beside)
    device_s = sum(part.seconds for part in found)
    return found, pace(block.operators, device_s, int(block.dropless), on.software)


def pass_of(paced: list[Paced], layers: int, on: Machine) -> PassCost:
    """Return a pass of blocks in the order in which it meets them; nothing is sharded fully."""
    parts = list(chain(*_with_host(paced, on)))
    return pass_cost(parts, layers, sum(one.host_s for _, one in paced))


def _with_host(blocks: list[Paced], on: Machine) -> list[list[Part]]:
    """Return what each block of a pass does, and what the device waits in it for the host."""
    waits = host_parts([paced for _, paced in blocks], on.software)
    return [[*found, *also] for (found, _), also in zip(blocks, waits, strict=True)]


def _parts(
    operators: Sequence[Operator], on: Machine, skew: float, *, delayed: bool = False
) -> list[Part]:
    parts = []
    for operator in operators:
        timed = price(operator, on, skew)
        late = delayed and operator.name.endswith("_wgrad") and operator.module != "router"
        parts.append(Part(timed.stream, part_name(operator), timed.seconds, late))
    if on.layout.tensor_overlap:
        parts = beside_products(operators, parts, on.software.overlapped_fraction, on.layout.tp)
    if on.layout.cp > 1 and on.layout.cp_comm == "ring":
        return beside_attention(parts, on.layout.cp, on.software.overlapped_fraction)
    return parts


def part_name(operator: Operator) -> str:
    """Return the name under which reports show `operator`."""
    if isinstance(operator, Exchange):
        return operator.name.removesuffix("_grad")
    if isinstance(operator, Collective):
        return TRANSFERS.get(operator.group, operator.group)
    if isinstance(operator, MaskProduct):
        return "dispatch masks"
    return PARTS[operator.module]


def clipped_update_s(params: StageParams, job: Job, on: Machine) -> float:
    """Return the gradients' norm, its sum over all ranks, the update and the casts to fp8.

    Passes over the whole gradients come with it where a rank sums them itself.

    The sum is of 4 bytes, over the replicas and over the ranks that cut the model.
    """
    rule, parts = job.optimizer, (on.layout, on.device, on.software)
    summed = sum(
        transfer("all_reduce", 4.0, on.networks[group], on).seconds
        for group in ("dp_cp", "tp", "pp")
        if on.networks[group].size > 1
    )
    norm = norm_s(params, rule, *parts) + summed
    if job.shard.fusions == "megatron_2021":  # its passes hold those over the buffers
        norm += further_passes_s(
            job.shard.fusions, params, rule,
            layout=on.layout, device=on.device, software=on.software,
        )  # fmt: skip
    elif job.sums_gradients:
        norm += buffer_passes_s(params, rule, *parts)
    return norm + update_s(params, rule, *parts) + weight_casts_s(params, job.shard, on)


def weight_casts_s(params: StageParams, shard: Shard, on: Machine) -> float:
    """Return the seconds of casting a rank's weights to fp8, once for all micro-batches."""
    if shard.quantisation is None:
        return 0.0
    cast = params.attention + params.dense_ffn + params.shared_experts + params.routed_experts
    rate = on.device.memory_bandwidth_bytes_per_s * on.software.memory_fraction
    return cast * shard.quantisation.passes_bytes / rate


def send_s(job: Job, on: Machine) -> float:
    """Return the seconds of handing a micro-batch on to the next stage."""
    return sum(price(one, on).seconds for one in handed_on(job, on.layout.pp))


def handed_on(job: Job, stages: int) -> list[Collective]:
    """Return the transfer of a micro-batch's activations to the next stage."""
    if stages == 1:
        return []
    tokens = sequence_shard_tokens(job.batch.decoder, job.shard)
    payload = job.shard.wide_bytes * tokens * job.architecture.hidden
    return [_transfer("pp_send", "send", "pp", payload)]


def _transfer(name: str, kind: CollectiveKind, group: str, payload: float) -> Collective:
    return Collective(name=name, module=group, kind=kind, group=group, payload_bytes=payload)


def embedding_s(job: Job, stage: list[Chunk], on: Machine) -> float:
    """Return the seconds of summing the gradients of an embedding that both ends hold."""
    return sum(price(one, on).seconds for one in _embedding_gradients(job, stage, on))


def _embedding_gradients(job: Job, stage: list[Chunk], on: Machine) -> list[Collective]:
    """Return the sum of an embedding's gradients over the first and the last stage that hold it.

    The whole table travels, also where a distributed optimizer has left each rank only a share of
    the summed gradients. Source: Megatron-LM core/distributed/finalize_model_grads.py.
    """
    at_an_end = any(chunk.has_embedding or chunk.has_logits for chunk in stage)
    if on.layout.schedule in FOLDED:
        return []  # both ends lie on the first stage
    if on.layout.pp == 1 or not at_an_end or not copies_embedding(job.architecture):
        return []
    table = embedding_params(job.architecture) / job.shard.tp
    payload = table * job.optimizer.gradient_bytes
    return [_transfer("embedding_all_reduce", "all_reduce", "embedding", payload)]


def between_steps_s(params: StageParams, rule: OptimizerRule, on: Machine) -> tuple[float, float]:
    """Return the seconds of reducing gradients and of gathering weights, once per step.

    Fully sharded, each pass gathers and scatters; what is left are the sums of the shards over
    replicas, once per step (PyTorch: set_requires_all_reduce on the last micro-batch).
    """
    layout = on.layout
    if layout.fsdp:
        sizes = (
            ("replicas", params.dense / layout.dense_shards),
            ("expert_replicas", params.routed_experts / layout.expert_shards),
        )
        sums = [
            transfer("all_reduce", size * rule.gradient_bytes, on.networks[name], on).seconds
            for name, size in sizes
        ]
        return sum(sums), 0.0
    reduce_s = _over_replicas_s(params, rule.gradient_bytes, on, scatter_only=rule.distributed)
    if not rule.distributed:
        return reduce_s, 0.0
    return reduce_s, _over_replicas_s(params, rule.gathered_bytes, on, scatter_only=True)


def _over_replicas_s(
    params: StageParams, bytes_per_param: float, on: Machine, *, scatter_only: bool
) -> float:
    """Return the seconds of reducing gradients or gathering weights over all replicas.

    Dense weights are replicated over dp * cp, experts over edp; the two follow each other. A
    distributed optimizer needs only half of an all-reduce: each rank's own share.
    """
    kind: CollectiveKind = "reduce_scatter" if scatter_only else "all_reduce"
    dense = transfer(kind, params.dense * bytes_per_param, on.networks["dp_cp"], on)
    experts = transfer(kind, params.routed_experts * bytes_per_param, on.networks["edp"], on)
    return dense.seconds + experts.seconds
