"""Simulates a resolved training run: memory, then step after step."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from moesim.cost.activations import ChunkActivations, fullest
from moesim.cost.data_loading import data_loading_s, stored_bytes_per_token
from moesim.cost.memory import StageMemory, always_held, stage_activations, with_activations
from moesim.cost.pipeline import Chunk
from moesim.cost.pricing import Machine, machine
from moesim.cost.recomputation import again
from moesim.cost.stage import stage_cost
from moesim.cost.times import PassCost, StageCost
from moesim.cost.varied import mean_cost
from moesim.cost.work import Loads
from moesim.hardware.device import peak
from moesim.model.architecture import layers_of
from moesim.model.flop import forward_flop, whole_layer
from moesim.model.layers import mtp_operators
from moesim.model.operators import flop
from moesim.model.shapes import Shard
from moesim.sim.training.registry import ROUTES, stage_moments, stage_order
from moesim.sim.training.schedules import Order, Pair
from moesim.sim.training.step import StepPlan, StepResult, simulate_step, work_of
from moesim.study.device_speeds import slowed
from moesim.study.micro_batches import (
    VariedLoads,
    draw_varied,
    durations,
    loads_at,
    varied_costs,
    varied_memory,
    varies,
)
from moesim.study.outcome import Metrics, Outcome, Share, Step
from moesim.study.resolve import Training
from moesim.study.routing import draw, moe_layers
from moesim.study.split import stage_chunks

Shares = dict[int, float]
"""Share of assignments that was computed, not dropped, by the number of the layer."""
Counted = dict[int, tuple[int, int]]
"""Assignments wanted and computed in a step, by the number of the layer."""


def simulate(run: Training, progress: Callable[[int, int], None] | None = None) -> Outcome:
    """Return what `run` comes to; `progress` is told the steps done and the steps in all."""
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    stages = stage_chunks(run)
    orders = stage_orders(run)
    results: list[StepResult] = []
    steps: list[Step] = []
    counted: list[Counted] = []
    is_even = run.scenario.routing.load.law == "even"
    first: _Stepped | None = None
    for number in range(run.scenario.training.steps):
        if number == 0 or not is_even:
            stepped = _stepped(run, stages, orders, number, on)
        first = first or stepped
        results.append(stepped.result)
        counted.append(stepped.counted)
        steps.append(_step(number, stepped, run.micro_batches))
        if progress is not None:
            progress(number + 1, run.scenario.training.steps)
    if first is None:
        raise ValueError("a run has one step at least")
    breakdown = _breakdown(run, first.costs, results[0])
    held = varied_memory(run, stages, first.varied, orders) if first.varied else None
    return Outcome(
        run=run,
        metrics=_metrics(run, steps, breakdown, computed_shares(counted)),
        steps=tuple(steps),
        breakdown=breakdown,
        memory=tuple(held or memory(run, stages, first.loads)),
        stages=first.costs,
        first=results[0],
        loads=first.loads,
        slices=results[0].slices,
        varied=first.varied,
        durations=first.durations,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stepped:
    """One simulated step."""

    loads: Loads
    """Of its first micro-batch."""
    varied: VariedLoads | None
    """Of all of them, where they differ."""
    costs: tuple[StageCost, ...]
    result: StepResult
    counted: Counted
    durations: tuple[tuple[float, ...], ...] = ()


def _stepped(
    run: Training, stages: list[list[Chunk]], orders: tuple[Order, ...], number: int, on: Machine
) -> _Stepped:
    if not varies(run):
        loads = draw(run, number)
        costs = stage_costs(run, stages, loads, on)
        result = simulate_step(plan(run, orders, costs))
        counts = {n: (one.assignments, one.computed) for n, one in loads.items()}
        return _Stepped(loads=loads, varied=None, costs=costs, result=result, counted=counts)
    varied = draw_varied(run, number)
    low, high = (stage_costs(run, stages, loads_at(varied, knot), on) for knot in ("low", "high"))
    between = varied_costs(run, stages, orders, varied=varied, knots=(low, high), on=on)
    costs = tuple(mean_cost(one) for one in between)
    passes_s = durations(orders, between)
    return _Stepped(
        loads=loads_at(varied, "first"), varied=varied, costs=costs,
        result=simulate_step(plan(run, orders, costs, passes_s)), durations=passes_s,
        counted={
            n: (one.first.assignments * run.micro_batches, one.computed)
            for n, one in varied.items()
        },
    )  # fmt: skip


def stage_orders(run: Training) -> tuple[Order, ...]:
    """Return the schedule of every stage."""
    return tuple(stage_order(*_schedule(run, stage)) for stage in range(run.layout.pp))


def _schedule(run: Training, stage: int) -> tuple[str, int, int, tuple[int, int], bool]:
    """Return the schedule of a stage, as the registry asks for it."""
    layout, pairs = run.layout, run.job.exchange_overlap == "batch"
    return layout.schedule, stage, layout.pp, (run.micro_batches, layout.vpp), pairs


def stage_costs(
    run: Training, stages: list[list[Chunk]], loads: Loads, on: Machine
) -> tuple[StageCost, ...]:
    """Return the times of every stage; equal stages are priced once."""
    known: dict[object, StageCost] = {}
    costs = []
    for stage in stages:
        key = tuple(_likeness(chunk, loads) for chunk in stage)
        if key not in known:
            known[key] = stage_cost(run.job, stage, loads, on)
        costs.append(known[key])
    return slowed(run, tuple(costs), on)


def _likeness(chunk: Chunk, loads: Loads) -> object:
    """Return what two chunks must share to cost the same."""
    layers = tuple((p.layer, p.in_encoder, id(loads.get(p.number))) for p in chunk.layers)
    return (chunk.has_embedding, chunk.has_logits, chunk.mtp_layers, layers)


def plan(
    run: Training, orders: tuple[Order, ...], costs: tuple[StageCost, ...],
    durations: tuple[tuple[float, ...], ...] = (),
) -> StepPlan:  # fmt: skip
    """Return what the simulation needs to know of a step; `durations` where passes differ."""
    overlap = run.scenario.training.overlap
    return StepPlan(
        orders=orders,
        stages=costs,
        overlap_reduce=overlap.grad_reduce,
        overlap_gather=overlap.param_gather,
        overlapped_rate=run.software.overlapped_fraction,
        post_validation=run.scenario.training.optimizer.post_validation,
        load_s=_load_s(run),
        route=ROUTES.get(run.layout.schedule, "loop"),
        durations=durations,
    )


def tokens_per_step(run: Training) -> int:
    """Return the tokens of a step; those of encoder and decoder both count."""
    spec = run.scenario.training
    return spec.global_batch * (spec.sequence_length + (spec.target_length or 0))


def _load_s(run: Training) -> float:
    """Return what the data of a step takes to be there."""
    spec = run.scenario.training.data_loading
    if spec is None:
        return 0.0
    each = spec.bytes_per_token or stored_bytes_per_token(run.architecture.vocab)
    return data_loading_s(tokens_per_step(run), each, spec.storage_bandwidth, spec.tokens_per_s)


def memory(run: Training, stages: list[list[Chunk]], loads: Loads) -> list[StageMemory]:
    """Return the peak memory of one rank of each stage; equal stages are counted once."""
    known: dict[object, tuple[StageMemory, tuple[ChunkActivations, ...]]] = {}
    found = []
    for number, stage in enumerate(stages):
        key = tuple(_likeness(chunk, loads) for chunk in stage)
        if key not in known:
            known[key] = (
                always_held(run.job, stage, loads, run.layout, run.software),
                stage_activations(run.job, stage, loads),
            )
        always, held = known[key]
        most = fullest(held, stage_moments(*_schedule(run, number)))
        found.append(with_activations(always, *most, run.software))
    return found


def _step(number: int, stepped: _Stepped, micro_batches: int) -> Step:
    seconds, varied = stepped.result.seconds, stepped.varied
    if varied is None:
        loads = stepped.loads.values()
        routed, dropped = (sum(getattr(one, of) for one in loads) for of in ("routed", "dropped"))
        imbalances = [load.rank_imbalance for load in loads]
    else:
        routed, dropped = (
            round(sum(getattr(one, of) for one in varied.values()) / micro_batches)
            for of in ("routed", "dropped")
        )
        imbalances = [float(load.imbalances.mean()) for load in varied.values()]
    return Step(
        number=number,
        seconds=seconds,
        routed=routed,
        dropped=dropped,
        imbalance=sum(imbalances) / len(imbalances) if imbalances else 1.0,
    )


def _breakdown(
    run: Training, costs: tuple[StageCost, ...], result: StepResult
) -> tuple[Share, ...]:
    """Return where the time of a step goes, averaged over stages; idle is what is left."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for cost, log, order in zip(costs, result.stages, stage_orders(run), strict=True):
        for one, times in _works(cost, order):
            for part in one.parts:
                kind = "compute" if part.stream == "compute" else "exposed"
                seconds[part.name, kind] += part.seconds * times
        seconds["gradient reduction", "exposed"] += log.reduce_exposed_s
        seconds["weight gathering", "exposed"] += log.gather_exposed_s
        seconds["optimizer", "compute"] += log.update_s
    stages = len(costs)
    seconds["data loading", "waiting"] = result.load_exposed_s * stages
    shares = [Share(name, kind, total / stages) for (name, kind), total in seconds.items() if total]
    idle = result.seconds - sum(share.seconds for share in shares)
    if run.layout.pp > 1:
        shares.append(Share("pipeline bubble", "idle", max(0.0, idle)))
    return tuple(shares)


def _works(cost: StageCost, order: Order) -> list[tuple[PassCost, int]]:
    """Return what a stage does in a step, and how often."""
    first: dict[object, tuple[PassCost, int]] = {}
    for item in order:
        key = (
            (item.forward.chunk, item.backward.chunk)
            if isinstance(item, Pair)
            else (item.kind, item.chunk)
        )
        work, times = first.get(key) or (work_of(cost, item), 0)
        first[key] = (work, times + 1)
    return list(first.values())


def _metrics(
    run: Training, steps: list[Step], breakdown: tuple[Share, ...], computed: Shares
) -> Metrics:
    spec, device = run.scenario.training, run.cluster.device
    devices = run.layout.devices
    step_s = sum(step.seconds for step in steps) / len(steps)
    tokens = tokens_per_step(run)
    useful = 3 * _forward_flop_per_sequence(run, computed) * spec.global_batch
    extra = _recomputed_flop_per_sequence(run, computed) * spec.global_batch
    per_device = useful / step_s / devices
    top = peak(device, spec.precision)
    price = device.price_usd_per_device_hour
    usd_per_s = price * devices / 3600 if price is not None else None
    first_s = sum(share.seconds for share in breakdown)
    total_s = spec.tokens / (tokens / step_s) if spec.tokens is not None else None
    return Metrics(
        step_s=step_s,
        tokens_per_step=tokens,
        tokens_per_s=tokens / step_s,
        tokens_per_s_per_device=tokens / step_s / devices,
        model_flop_per_token=useful / tokens,
        flop_per_s_per_device=per_device,
        mfu_fraction=per_device / top,
        hfu_fraction=(useful + extra) / step_s / devices / top,
        bubble_fraction=_share(breakdown, "idle") / first_s,
        exposed_fraction=_share(breakdown, "exposed") / first_s,
        usd_per_million_tokens=usd_per_s * step_s / tokens * 1e6 if usd_per_s is not None else None,
        energy_at_tdp_j_per_token=device.tdp_w * devices * step_s / tokens
        if device.tdp_w
        else None,
        training_days=total_s / 86400 if total_s is not None else None,
        training_usd=total_s * usd_per_s if total_s is not None and usd_per_s is not None else None,
    )


def _share(breakdown: tuple[Share, ...], kind: str) -> float:
    return sum(share.seconds for share in breakdown if share.kind == kind)


def _forward_flop_per_sequence(run: Training, computed: Shares) -> float:
    """Return the useful FLOP of a forward pass; experts that dropped tokens pass by do none."""
    batch = run.job.batch
    whole = forward_flop(run.architecture, batch.decoder, batch.encoder) / batch.decoder.sequences
    hidden, lost = run.architecture.hidden, 0.0
    for layer in moe_layers(run):
        per_row = 2.0 * hidden * layer.ffn.expert_width * (3 if layer.ffn.gated else 2)
        assignments = layer.shape.length * layer.ffn.top_k
        lost += (1 - computed[layer.number]) * assignments * per_row
    return whole - lost


def _recomputed_flop_per_sequence(run: Training, computed: Shares) -> float:
    """Return the forward FLOP that run a second time, per sequence; MTP layers included."""
    batch, architecture = run.job.batch, run.architecture
    layers = [
        *((layer, batch.encoder or batch.decoder) for layer in layers_of(architecture.encoder)),
        *((layer, batch.decoder) for layer in layers_of(architecture.decoder)),
    ]
    layers += [layers[-1]] * architecture.mtp_layers
    known: dict[object, float] = {}
    total = 0.0
    for number, (layer, shape) in enumerate(layers):
        key = (layer, shape, computed.get(number, 1.0))
        if key not in known:
            operators = whole_layer(layer, architecture.hidden, shape, key[2])
            repeated = again(operators, run.job.recompute)
            known[key] = sum(flop(op) for op in repeated) / shape.sequences
        total += known[key]
    projection = again(mtp_operators(architecture, batch.decoder, Shard()), run.job.recompute)
    each = sum(flop(op) for op in projection) / batch.decoder.sequences
    return total + architecture.mtp_layers * each


def computed_shares(counted: list[Counted]) -> Shares:
    """Return, for each MoE layer, the share of tokens * top_k computed, over all steps."""
    return {
        number: sum(one[number][1] for one in counted) / sum(one[number][0] for one in counted)
        for number in counted[0]
    }
