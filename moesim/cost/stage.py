"""Seconds of everything a pipeline stage does in a training step."""

from collections.abc import Iterable

from moesim.cost.host import host_parts
from moesim.cost.optimizer import norm_s, update_s
from moesim.cost.parameters import StageParams, copies_embedding, stage_params
from moesim.cost.pipeline import Chunk
from moesim.cost.pricing import Machine, price, transfer
from moesim.cost.recomputation import again
from moesim.cost.times import Part, PassCost, StageCost, pass_cost
from moesim.cost.work import Block, Job, Loads, blocks
from moesim.model.backward import backward
from moesim.model.operators import Collective, CollectiveKind, Exchange, Operator
from moesim.model.parameters import embedding_params
from moesim.model.shapes import Shard, sequence_shard_tokens

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


def stage_cost(job: Job, stage: list[Chunk], loads: Loads, on: Machine) -> StageCost:
    """Return how long everything takes that one rank of a stage does."""
    work = [blocks(job, chunk, loads) for chunk in stage]
    params = stage_params(job.architecture, stage, job.shard)
    rule = job.optimizer
    return StageCost(
        forward=tuple(forward_pass(found, on) for found in work),
        backward=tuple(backward_pass(found, on, job.recompute) for found in work),
        send_s=_send_s(job, on),
        reduce_s=_over_replicas_s(params, rule.gradient_bytes, on, scatter_only=rule.distributed),
        gather_s=_over_replicas_s(params, rule.gathered_bytes, on, scatter_only=True)
        if rule.distributed
        else 0.0,
        update_s=clipped_update_s(params, job, on),
        embedding_s=sum(price(one, on).seconds for one in _embedding_gradients(job, stage, on)),
    )


def forward_pass(found: list[Block], on: Machine) -> PassCost:
    """Return the forward pass of one micro-batch through these blocks."""
    cache: dict[int, list[Part]] = {}
    parts: list[Part] = []
    for block in found:
        if id(block) not in cache:
            cache[id(block)] = _with_host(block, block.operators, on)
        parts += cache[id(block)]
    return pass_cost(parts, sum(block.is_layer for block in found))


def backward_pass(found: list[Block], on: Machine, recompute: tuple[str, ...]) -> PassCost:
    """Return the backward pass, with what is computed again before each block's gradients."""
    cache: dict[int, list[Part]] = {}
    parts: list[Part] = []
    for block in reversed(found):
        if id(block) not in cache:
            repeated = again(block.operators, recompute) if block.is_layer else []
            grads = [g for op in reversed(block.operators) for g in backward(op)]
            cache[id(block)] = _backward_parts(block, repeated, grads, on)
        parts += cache[id(block)]
    return pass_cost(parts, sum(block.is_layer for block in found))


def _backward_parts(
    block: Block, repeated: list[Operator], grads: list[Operator], on: Machine
) -> list[Part]:
    found = [
        *(Part(p.stream, "recomputation" if p.stream == "compute" else p.name, p.seconds)
          for p in _parts(repeated, on, block.skew)),
        *_parts(grads, on, block.skew),
    ]  # fmt: skip
    stops = block.dropless and any(isinstance(one, Exchange) for one in repeated)
    device_s = sum(part.seconds for part in found)
    return found + host_parts([*repeated, *grads], device_s, int(stops), on.software)


def _with_host(block: Block, operators: list[Operator], on: Machine) -> list[Part]:
    found = _parts(operators, on, block.skew)
    device_s = sum(part.seconds for part in found)
    return found + host_parts(operators, device_s, int(block.dropless), on.software)


def _parts(operators: Iterable[Operator], on: Machine, skew: float) -> list[Part]:
    parts = []
    for operator in operators:
        timed = price(operator, on, skew)
        parts.append(Part(timed.stream, part_name(operator), timed.seconds))
    return parts


def part_name(operator: Operator) -> str:
    """Return the name under which reports show `operator`."""
    if isinstance(operator, Exchange):
        return operator.name.removesuffix("_grad")
    if isinstance(operator, Collective):
        return TRANSFERS.get(operator.group, operator.group)
    return PARTS[operator.module]


def clipped_update_s(params: StageParams, job: Job, on: Machine) -> float:
    """Return the gradients' norm, its sum over all ranks, the update and the casts to fp8.

    The sum is of 4 bytes, over the replicas and over the ranks that cut the model.
    """
    rule, parts = job.optimizer, (on.layout, on.device, on.software)
    summed = sum(
        transfer("all_reduce", 4.0, on.networks[group], on).seconds
        for group in ("dp_cp", "tp", "pp")
        if on.networks[group].size > 1
    )
    norm = norm_s(params, rule, *parts) + summed
    return norm + update_s(params, rule, *parts) + weight_casts_s(params, job.shard, on)


def weight_casts_s(params: StageParams, shard: Shard, on: Machine) -> float:
    """Return the seconds of casting a rank's weights to fp8, once for all micro-batches."""
    if shard.quantisation is None:
        return 0.0
    cast = params.attention + params.dense_ffn + params.shared_experts + params.routed_experts
    rate = on.device.memory_bandwidth_bytes_per_s * on.software.memory_fraction
    return cast * shard.quantisation.passes_bytes / rate


def _send_s(job: Job, on: Machine) -> float:
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


def _embedding_gradients(job: Job, stage: list[Chunk], on: Machine) -> list[Collective]:
    """Return the sum of an embedding's gradients over the first and the last stage that hold it.

    The whole table travels, also where a distributed optimizer has left each rank only a share of
    the summed gradients. Source: Megatron-LM core/distributed/finalize_model_grads.py.
    """
    at_an_end = any(chunk.has_embedding or chunk.has_logits for chunk in stage)
    if on.layout.pp == 1 or not at_an_end or not copies_embedding(job.architecture):
        return []
    table = embedding_params(job.architecture) / job.shard.tp
    payload = table * job.optimizer.gradient_bytes
    return [_transfer("embedding_all_reduce", "all_reduce", "embedding", payload)]


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
