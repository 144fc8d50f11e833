"""trace.json: the first step as a timeline for chrome://tracing or ui.perfetto.dev.

One process per stage of each model, one track per stream; slices of a track never overlap. Arrows
lead from a pass to the pass of another stage that waits for its result; a counter per stage shows
the activations it holds. What is hidden beside shared experts or while gathering shards of weights
is not drawn: only what of it is left.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any

from moesim.cost.pipeline import Chunk
from moesim.cost.times import StageCost
from moesim.cost.two_streams import interference
from moesim.model.architecture import MoeFfn
from moesim.sim.training.schedules import Action, Pair, passes
from moesim.sim.training.step import work_of
from moesim.sim.training.transfers import Done, Transfer, passes_done, transfers
from moesim.study.findings import Findings
from moesim.study.memory_timeline import memory_timeline
from moesim.study.outcome import Outcome
from moesim.study.report.trace_streams import DIRECTIONS, STREAMS, Labels, Piece, one_pass, pair
from moesim.study.simulate import plan, stage_orders
from moesim.study.split import stage_chunks

MAX_DETAILED = 40_000
"""Pieces of passes that are taken apart at most, three of four at the begin of the step, the others
at its end; passes between are shown whole."""

MAX_PASSES = 20_000
"""Passes at most, and as many transfers; what comes later is left out, and said."""

Event = dict[str, Any]


def trace(result: Findings) -> dict[str, Any]:
    """Return the Chrome trace of a result's first step, times in microseconds."""
    events: list[Event] = []
    first = 0
    for who, outcome in result.runs:
        events += events_of(outcome, f"{who}: {outcome.run.architecture.name}", first)
        first += outcome.run.layout.pp
    return {"displayTimeUnit": "ms", "traceEvents": events}


def events_of(outcome: Outcome, name: str, first: int = 0) -> list[Event]:
    """Return the events of one run; its stages are processes from `first` on."""
    orders = stage_orders(outcome.run)
    done = passes_done(orders, outcome.first)
    sent = transfers(plan(outcome.run, orders, outcome.stages), done)[:MAX_PASSES]
    if sum(map(len, done)) > MAX_PASSES:
        name += f" (the first {MAX_PASSES:,} passes)"
    pieces = [*_between(outcome), *_passes(outcome, done), *_sent(sent)]
    lanes = _lanes(pieces)
    events = _names(name, first, outcome.run.layout.pp, sorted({*lanes.values()}))
    events += [_slice(piece, first, lanes[n]) for n, piece in enumerate(pieces)]
    events += _arrows(sent, pieces, lanes, first)
    for stage in range(outcome.run.layout.pp):
        levels = memory_timeline(outcome, stage)[:MAX_PASSES]
        events += [_counter(first + stage, one.start_s, one.memory.activations) for one in levels]
    return events


def _between(outcome: Outcome) -> list[Piece]:
    """Return what is no pass: gathering, reduction, optimizer."""
    found = []
    for one in outcome.first.slices:
        _, stage, stream = one.track.split(" ", 2)
        if stream != "compute" or one.name == "optimizer":
            found.append(Piece(int(stage), stream, one.name, one.start_s, one.duration_s))
    return found


def _passes(outcome: Outcome, done: list[list[Done]]) -> list[Piece]:
    """Return every pass, and what it consists of as far as the number of pieces allows."""
    ran = sorted(
        ((one.slice.start_s, stage, one) for stage, items in enumerate(done) for one in items),
        key=lambda one: one[:2],
    )
    ran = ran[:MAX_PASSES]
    whole = _shown_whole([_pieces(outcome.stages[stage], one) for _, stage, one in ran])
    found: list[Piece] = []
    chunks = stage_chunks(outcome.run)
    for number, (start_s, stage, one) in enumerate(ran):
        duration_s, both = one.slice.duration_s, tuple(passes((one.item,)))
        found.append(Piece(stage, "passes", str(one.item), start_s, duration_s, both))
        if number in whole:
            found.append(Piece(stage, "compute", str(one.item), start_s, duration_s, both))
        else:
            found += _to_scale(_taken_apart(outcome, stage, one, chunks[stage]), one)
    return found


def _to_scale(parts: list[Piece], one: Done) -> list[Piece]:
    """Return the parts of a pass as long as this one took: micro-batches differ from the mean."""
    start_s, duration_s = one.slice.start_s, one.slice.duration_s
    span_s = max((part.start_s + part.duration_s for part in parts), default=start_s) - start_s
    if span_s <= 0 or abs(span_s - duration_s) <= 1e-9 * duration_s:
        return parts
    scale = duration_s / span_s
    return [
        replace(
            part,
            start_s=start_s + (part.start_s - start_s) * scale,
            duration_s=part.duration_s * scale,
        )
        for part in parts
    ]


def _pieces(times: StageCost, one: Done) -> int:
    """Return of how many pieces a pass is, or both of a pair."""
    return sum(len(work_of(times, action).parts) for action in passes((one.item,)))


def _shown_whole(pieces: list[int]) -> range:
    """Return the passes between those taken apart at both ends of the step."""
    ahead = list(accumulate(pieces))
    if not pieces or ahead[-1] <= MAX_DETAILED:
        return range(0)
    first = bisect_right(ahead, MAX_DETAILED * 3 // 4)
    last = bisect_right(list(accumulate(reversed(pieces))), MAX_DETAILED // 4)
    return range(first, max(first, len(pieces) - last))


def _taken_apart(outcome: Outcome, stage: int, one: Done, chunks: list[Chunk]) -> list[Piece]:
    """Return the parts of a pass; of a pair with overlap, both passes beside each other."""
    times, start_s, item = outcome.stages[stage], one.slice.start_s, one.item

    def labels(action: Action) -> Labels:
        return Labels(
            stage, action, work_of(times, action), _expert_layers(outcome, chunks[action.chunk])
        )

    if not isinstance(item, Pair):
        return list(one_pass(labels(item), start_s))
    forward, backward = labels(item.forward), labels(item.backward)
    if outcome.run.job.exchange_overlap == "batch":
        run = outcome.run
        cost = interference(run.cluster.device, run.software, run.layout.dispatcher)
        return pair(forward, backward, start_s, cost)
    ahead = list(one_pass(forward, start_s))
    return [*ahead, *one_pass(backward, start_s + forward.work.seconds)]


def _expert_layers(outcome: Outcome, chunk: Chunk) -> tuple[int, ...]:
    layers = [one.number for one in chunk.layers if isinstance(one.layer.ffn, MoeFfn)]
    total = outcome.run.architecture.num_layers
    return (*layers, *(n for n in range(total, total + chunk.mtp_layers) if n in outcome.loads))


def _sent(sent: list[Transfer]) -> list[Piece]:
    """Return each transfer twice, where it is sent and where it is received, in this order."""
    found = []
    for one in sent:
        what = "activations" if one.action.kind == "F" else "gradients"
        for stage, way in ((one.sender, "send"), (one.receiver, "receive")):
            found.append(
                Piece(
                    stage,
                    f"{way} {what}",
                    f"{one.action} {way}",
                    one.start_s,
                    one.duration_s,
                    (one.action,),
                )
            )
    return found


Lane = tuple[int, int]
"""The place of a stream in STREAMS, and the number of its track: transfers may overlap."""


def _lanes(pieces: list[Piece]) -> dict[int, Lane]:
    """Return the lane of each piece, by its place in `pieces`."""
    free: dict[tuple[int, str], list[int]] = defaultdict(list)
    found: dict[int, Lane] = {}
    order = sorted(range(len(pieces)), key=lambda n: (pieces[n].start_s, -n))
    for n in order:
        piece = pieces[n]
        ends, (start, end) = free[piece.stage, piece.stream], _ns(piece)
        number = next((k for k, busy in enumerate(ends) if busy <= start), len(ends))
        ends[number : number + 1] = [end]
        found[n] = (STREAMS.index(piece.stream), number)
    return found


def _ns(piece: Piece) -> tuple[int, int]:
    """Round both ends to a nanosecond: neighbours that touch still touch, none overlap."""
    return round(piece.start_s * 1e9), round((piece.start_s + piece.duration_s) * 1e9)


def _tid(lane: Lane) -> int:
    return 100 * lane[0] + lane[1]


def _names(name: str, first: int, stages: int, lanes: Iterable[Lane]) -> list[Event]:
    events: list[Event] = []
    shown = list(lanes)
    for pid in range(first, first + stages):
        about: Event = {"ph": "M", "pid": pid}
        events.append(
            {**about, "name": "process_name", "args": {"name": f"{name}, stage {pid - first}"}}
        )
        events.append({**about, "name": "process_sort_index", "args": {"sort_index": pid}})
        for lane in shown:
            track = STREAMS[lane[0]] + (f" {lane[1] + 1}" if lane[1] else "")
            on = {**about, "tid": _tid(lane)}
            events.append({**on, "name": "thread_name", "args": {"name": track}})
            events.append({**on, "name": "thread_sort_index", "args": {"sort_index": _tid(lane)}})
    return events


def _slice(piece: Piece, first: int, lane: Lane) -> Event:
    start, end = _ns(piece)
    event: Event = {
        "ph": "X", "pid": first + piece.stage, "tid": _tid(lane), "name": piece.name,
        "ts": start / 1e3, "dur": (end - start) / 1e3,
    }  # fmt: skip
    if piece.actions:
        event["cat"] = " & ".join(DIRECTIONS[one.kind] for one in piece.actions)
        event["args"] = _about(piece)
    return event


def _about(piece: Piece) -> dict[str, Any]:
    """Return micro-batch and chunk of a pass, or of both passes of a pair."""
    found: dict[str, Any] = {}
    for one in piece.actions:
        prefix = f"{DIRECTIONS[one.kind]} " if len(piece.actions) > 1 else ""
        found |= {f"{prefix}micro_batch": one.micro_batch, f"{prefix}chunk": one.chunk}
    return found if piece.layer is None else {**found, "layer": piece.layer}


def _arrows(
    sent: list[Transfer], pieces: list[Piece], lanes: dict[int, Lane], first: int
) -> list[Event]:
    """Return an arrow from each transfer to the pass that waits for it."""
    starts: dict[tuple[int, Action], int] = {}
    computing = ((n, one) for n, one in enumerate(pieces) if one.stream == "compute")
    for n, piece in computing:
        for action in piece.actions:
            key = (piece.stage, action)
            if key not in starts or piece.start_s < pieces[starts[key]].start_s:
                starts[key] = n
    events: list[Event] = []
    for number, one in enumerate(sent):
        if (one.receiver, one.needed_by) not in starts:
            continue
        to = starts[one.receiver, one.needed_by]
        at = len(pieces) - 2 * len(sent) + 2 * number
        both: Event = {"cat": "pipeline", "id": 1_000_000 * first + number, "name": str(one.action)}
        for kind, n in (("s", at), ("f", to)):
            event = {"ph": kind, "pid": first + pieces[n].stage, "tid": _tid(lanes[n]), **both}
            events.append(
                {**event, "ts": _ns(pieces[n])[0] / 1e3} | ({"bp": "e"} if kind == "f" else {})
            )
    return events


def _counter(pid: int, at_s: float, held: float) -> Event:
    return {
        "ph": "C", "pid": pid, "name": "activations held, bytes", "ts": round(at_s * 1e9) / 1e3,
        "args": {"bytes": held},
    }  # fmt: skip
