"""trace.json of every schedule: structure, streams, spans, arrows and counters."""

import json
from collections import defaultdict
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.report.trace import events_of
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate

_NUMBER = {"type": "number", "minimum": 0}
_WHERE = {"pid": {"type": "integer"}, "tid": {"type": "integer"}, "ts": _NUMBER}


def _event(kind: str, needs: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "properties": {"ph": {"const": kind}, "name": {"type": "string"}, **properties},
        "required": ["ph", "pid", "name", *needs],
    }


# Trace Event Format (Google, document 1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU): complete
# events, flow starts and ends with one id, counters, metadata
SCHEMA = {
    "type": "object",
    "oneOf": [
        _event("X", ["tid", "ts", "dur"], **_WHERE, dur=_NUMBER),
        _event("s", ["tid", "ts", "id", "cat"], **_WHERE),
        _event("f", ["tid", "ts", "id", "cat", "bp"], **_WHERE, bp={"const": "e"}),
        _event("C", ["ts", "args"], args={"type": "object", "additionalProperties": _NUMBER}),
        _event("M", ["args"]),
    ],
}

SETTINGS: dict[str, tuple[str, ...]] = {
    "dualpipe": ("parallel.schedule=dualpipe", "training.overlap.expert_exchange=batch"),
    "dualpipe_v": (
        "parallel.schedule=dualpipe_v", "parallel.vpp=2", "training.overlap.expert_exchange=batch",
    ),
    "1f1b": (),
    "interleaved": ("parallel.vpp=2", "training.overlap.expert_exchange=batch"),
    "zb_h1": ("parallel.schedule=zb_h1",),
    "zb_h2": ("parallel.schedule=zb_h2", "training.optimizer.post_validation=true"),
    "zb_v": ("parallel.schedule=zb_v", "parallel.vpp=2"),
    "hybridep, slow": (
        "parallel.schedule=dualpipe", "training.overlap.expert_exchange=batch",
        "parallel.dispatcher=hybridep", "cluster.speed_spread=0.05",
    ),
}  # fmt: skip


@lru_cache(maxsize=len(SETTINGS))
def _made(name: str) -> tuple[Outcome, tuple[dict[str, Any], ...]]:
    settings = (
        "parallel.pp=4",
        "cluster.devices=256",
        "training.global_batch=512",
        *SETTINGS[name],
    )
    outcome = simulate(resolve(load_scenario("deepseek-v3-2048xh800", settings)))
    return outcome, tuple(json.loads(json.dumps(events_of(outcome, name))))


def _tracks(events: tuple[dict[str, Any], ...]) -> dict[tuple[int, str], list[dict[str, Any]]]:
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], names[event["pid"], event["tid"]]].append(event)
    for track in found.values():
        track.sort(key=lambda one: (one["ts"], one["dur"]))
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_events_have_the_form_of_the_format(name: str) -> None:
    check = Draft202012Validator(SCHEMA)
    for event in _made(name)[1][::5]:  # a fifth of all: validation is slow
        assert check.is_valid(event), event


@pytest.mark.parametrize("name", SETTINGS)
def test_tracks_never_overlap_and_end_with_the_step(name: str) -> None:
    outcome, events = _made(name)
    tracks = _tracks(events)
    for track in tracks.values():
        for one, following in pairwise(track):
            assert round(following["ts"] * 1e3) >= round(one["ts"] * 1e3) + round(one["dur"] * 1e3)
    end_us = max(one["ts"] + one["dur"] for track in tracks.values() for one in track)
    last_s = max(stage.end_s for stage in outcome.first.stages)
    assert end_us == pytest.approx(last_s * 1e6, abs=2e-3)
    assert min(one["ts"] for track in tracks.values() for one in track) == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_every_stage_has_its_streams(name: str) -> None:
    outcome, events = _made(name)
    tracks = _tracks(events)
    wanted = {"passes", "compute", "expert exchange", "data-parallel"}
    for stage in range(4):
        streams = {stream for pid, stream in tracks if pid == stage}
        assert wanted <= streams
        assert any(one.startswith("send") for one in streams)
        assert any(one.startswith("receive") for one in streams)
    between = {
        one["name"] for (_, s), track in tracks.items() if s == "data-parallel" for one in track
    }
    assert {"gather weights", "reduce gradients"} <= between
    assert {one["args"]["name"] for one in events if one["name"] == "process_name"} == {
        f"{name}, stage {stage}" for stage in range(4)
    }
    assert outcome.run.layout.pp == 4


@pytest.mark.parametrize("name", SETTINGS)
def test_parts_fill_their_pass_and_last_as_long_as_simulated(name: str) -> None:
    """Compute of a pass alone: what its cost says; a pair: both passes' parts within its span."""
    outcome, events = _made(name)
    tracks = _tracks(events)
    for stage in range(4):
        cost = outcome.stages[stage]
        parts = [*tracks[stage, "compute"], *tracks[stage, "expert exchange"]]
        for one in tracks[stage, "passes"][:40]:
            end = one["ts"] + one["dur"]
            inside = [
                p for p in parts if one["ts"] <= p["ts"] < end - 2e-3 and p["name"] != "optimizer"
            ]
            assert max(p["ts"] + p["dur"] for p in inside) == pytest.approx(end, abs=2e-3)
            assert min(p["ts"] for p in inside) == pytest.approx(one["ts"], abs=2e-3)
            if "&" in one["name"] or one["name"][0] != "F":
                continue
            seconds = sum(p["dur"] for p in inside) / 1e6
            assert seconds == pytest.approx(cost.forward[one["args"]["chunk"]].seconds, rel=1e-6)


@pytest.mark.parametrize("name", ["dualpipe", "dualpipe_v", "interleaved"])
def test_exchanges_of_a_pair_run_beside_the_compute_of_the_other_pass(name: str) -> None:
    _, events = _made(name)
    tracks = _tracks(events)
    found = 0
    for stage in range(4):
        pairs = [one for one in tracks[stage, "passes"] if "&" in one["name"]]
        for one in pairs[:5]:
            end = one["ts"] + one["dur"]
            for sent in tracks[stage, "expert exchange"]:
                if not one["ts"] <= sent["ts"] < end:
                    continue
                beside = {
                    p["name"].split(" ")[0]
                    for p in tracks[stage, "compute"]
                    if p["ts"] < sent["ts"] + sent["dur"] - 2e-3
                    and sent["ts"] + 2e-3 < p["ts"] + p["dur"]
                }
                found += bool(beside)
                # never beside its own pass, but for gradients of weights that DualPipe delays
                own = sent["name"].split(" ")[0]
                assert own not in beside or (own.startswith("B") and name != "interleaved")
    assert found > 20


@pytest.mark.parametrize("name", ["dualpipe", "dualpipe_v", "interleaved", "hybridep, slow"])
def test_streams_of_a_pair_are_those_that_its_time_comes_from(name: str) -> None:
    """Compute at the pace the exchange leaves it, and exchanges: as long as their own pass says.

    With 20 of 132 units taken and overlapped communication at its full rate, compute beside
    exchanges takes longer by what the cost of the pair calls slowed; nothing else is added.
    """
    outcome, events = _made(name)
    tracks = _tracks(events)
    for stage in range(4):
        one = next(p for p in tracks[stage, "passes"] if "&" in p["name"])
        f, b = one["args"]["forward chunk"], one["args"]["backward chunk"]
        cost = outcome.stages[stage]
        joint = cost.joint[f][b]
        assert one["dur"] == pytest.approx(joint.seconds * 1e6, abs=2e-3)
        shown_s = sum(
            p["dur"]
            for p in tracks[stage, "compute"]
            if one["ts"] - 1e-3 <= p["ts"] < one["ts"] + one["dur"] - 2e-3
        )
        own_s = sum(p.seconds for p in joint.parts if p.stream == "compute")
        assert shown_s == pytest.approx(own_s * 1e6, rel=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_arrows_lead_from_a_send_to_a_later_pass_of_another_stage(name: str) -> None:
    _, events = _made(name)
    starts = {one["id"]: one for one in events if one["ph"] == "s"}
    ends = {one["id"]: one for one in events if one["ph"] == "f"}
    slices = {(e["pid"], e["tid"], e["ts"]) for e in events if e["ph"] == "X"}
    assert starts
    assert set(starts) == set(ends)
    for number, start in starts.items():
        end = ends[number]
        assert end["pid"] != start["pid"]
        assert end["ts"] > start["ts"]
        for one in (start, end):
            assert (one["pid"], one["tid"], one["ts"]) in slices


@pytest.mark.parametrize("name", SETTINGS)
def test_counters_rise_to_the_peak_that_memory_says_and_come_back_to_nothing(name: str) -> None:
    outcome, events = _made(name)
    for stage in range(4):
        held = [e for e in events if e["ph"] == "C" and e["pid"] == stage]
        assert [one["ts"] for one in held] == sorted(one["ts"] for one in held)
        # the fullest moment counts what is at work too: it need not hold the most
        fullest = outcome.memory[stage].activations
        assert any(one["args"]["bytes"] == pytest.approx(fullest, rel=1e-9) for one in held)
        assert held[-1]["args"]["bytes"] == pytest.approx(0, abs=1)


@pytest.mark.parametrize("name", SETTINGS)
def test_exchanges_name_a_layer_of_their_chunk(name: str) -> None:
    """DeepSeek-V3 has experts in the layers 3 to 60, and in its MTP module, number 61."""
    _, events = _made(name)
    layers = {
        one["args"]["layer"] for one in events if one["ph"] == "X" and "dispatch" in one["name"]
    }
    assert layers == set(range(3, 62))


def test_a_long_step_is_taken_apart_at_both_ends() -> None:
    """DualPipe on 2,048 devices: the first and the last passes in pieces, those between whole."""
    settings = (
        "baseline=[]",
        "parallel.schedule=dualpipe",
        "training.overlap.expert_exchange=batch",
    )
    events = events_of(simulate(resolve(load_scenario("deepseek-v3-2048xh800", settings))), "model")
    names = {one["args"]["name"]: one["tid"] for one in events if one["name"] == "thread_name"}
    exchange = [one["ts"] for one in events
                if one["ph"] == "X" and one["tid"] == names["expert exchange"]]  # fmt: skip
    end = max(one["ts"] + one["dur"] for one in events if one["ph"] == "X")
    assert min(exchange) < 0.1 * end
    assert max(exchange) > 0.9 * end
    assert not [start for start in exchange if 0.4 * end < start < 0.6 * end]
    assert sum(one["ph"] == "X" for one in events) < 60_000
