"""An engine's command line as a serving scenario: model and machines looked up, the whole checked.

The workload is not of the command line: a closed loop of random prompts is written, to be changed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moesim.errors import MoesimError, Problem, ScenarioError, nearest
from moesim.model.architecture import Architecture, LinearAttention, MoeFfn
from moesim.model.named import load_model, named_models
from moesim.spec.engines.checkpoints import Checkpoint, checkpoint
from moesim.spec.engines.facts import ModelFacts
from moesim.spec.engines.fleet import NOT_OF
from moesim.spec.engines.guesses import guesses_anything
from moesim.spec.engines.read import (
    DIALECTS,
    EngineRead,
    EngineSource,
    engine_fates,
    map_engine,
    read_engine,
    sides_of,
)
from moesim.spec.megatron.reading import Entry, Reading
from moesim.spec.megatron.write import plain, scenario_text
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from moesim.study.engine_workload import Wanted, imported_workload
from moesim.study.imports import cluster_of
from moesim.study.serving.engines import Resolved
from moesim.study.serving.presets.lookup import known_version
from moesim.study.serving.resolve import resolve
from moesim.study.serving.settings import pool_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineImport:
    """An imported deployment."""

    reads: tuple[EngineRead, ...]
    """The command; those of prefill and decode where there are both."""
    scenario: str
    """The scenario's YAML."""
    resolved: tuple[Resolved, ...] = ()
    """The engine's settings as they run; empty where moesim cannot simulate it."""
    trouble: str = ""
    """Why moesim cannot simulate it as it stands; empty where it can."""

    @property
    def read(self) -> EngineRead:
        """Return the first command."""
        return self.reads[0]


def import_engine(source: EngineSource, wanted: Wanted) -> EngineImport:
    """Return the command line in `source` as a serving scenario. Raises ScenarioError.

    A text with a command for prefill and one for decode is one deployment of both.
    """
    cluster = cluster_of(wanted.accelerator)
    _check_version(DIALECTS[source.engine][0].engine, wanted.version)
    parts = [_part(one, wanted) for one in sides_of(source) or (source,)]
    first, own = parts[0], sum(part.devices for part in parts)
    devices = wanted.devices or own
    if devices % own:
        message = f"{devices} is no multiple of the {own} devices that one deployment takes"
        raise ScenarioError([Problem("--devices", message)])
    entries = _head(wanted, first.model, first.read.model, cluster) | {
        "cluster.devices": Entry(value=devices, why=_copies(devices // own)),
        **_engine(first.read, wanted, "serving.engine"),
    }
    entries |= _both(parts, devices // own, wanted) or first.read.reading.scenario
    entries |= imported_workload(first.read.reading, wanted)
    resolved, trouble = _resolved(build(ServingScenario, Document(plain(entries))))
    reads = tuple(part.read for part in parts)
    return EngineImport(
        reads=reads, scenario=scenario_text(entries, _comment(reads, source.engine)),
        resolved=resolved, trouble=trouble,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One command line, mapped."""

    read: EngineRead
    side: str
    model: str
    """Its name here."""
    devices: int
    """Of one deployment."""


def _part(source: EngineSource, wanted: Wanted) -> _Part:
    read = read_engine(source)
    model, found = _model(read, wanted, source.file)
    facts = replace(
        _facts(load_model(model), found, read.model), both_sides=bool(source.side),
        acceptance=_acceptance(wanted, read.reading),
    )  # fmt: skip
    own = map_engine(read, facts, source.engine)
    for name in ("model", "model-path"):
        if read.reading.has(name):
            read.reading.mapped.add(name)
            read.reading.say(name, f"model: {model}")
    if source.side:
        _as_pool(read.reading, source.side)
    return _Part(read=read, side=source.side, model=model, devices=own)


def _as_pool(reading: Reading, side: str) -> None:
    """Let what became of arguments name the keys of a pool."""
    for name, texts in reading.became.items():
        reading.became[name] = [
            re.sub(r"\bserving\.(parallel|engine)\.", rf"serving.cluster.{side}.\1.", text)
            for text in texts
        ]


def _engine(read: EngineRead, wanted: Wanted, key: str) -> dict[str, Entry]:
    entries = {f"{key}.name": Entry(value=read.dialect.engine, why="")}
    if wanted.version is not None:
        entries[f"{key}.version"] = Entry(value=wanted.version, why="--engine-version")
    return entries


def _both(parts: Sequence[_Part], replicas: int, wanted: Wanted) -> dict[str, Entry]:
    """Return the keys of a pool for prefill and one for decode; nothing where one does both."""
    if len(parts) == 1:
        return {}
    found = {"serving.cluster.disaggregation": Entry(value="prefill_decode", why="")}
    kept = [_others(part.read.reading.scenario) for part in parts]
    if parts[0].model != parts[1].model or _plain(kept[0]) != _plain(kept[1]):
        message = "prefill and decode must have one model and the same number formats"
        raise ScenarioError([Problem("", message, parts[0].read.reading.file, 1, 1)])
    for part in parts:
        pool = f"serving.cluster.{part.side}"
        found[f"{pool}.replicas"] = Entry(value=replicas, why="")
        found |= _engine(part.read, wanted, f"{pool}.engine")
        for key, entry in part.read.reading.scenario.items():
            head, _, rest = key.removeprefix("serving.").partition(".")
            left = head == "engine" and rest.partition(".")[0] in NOT_OF[part.side]
            if head in ("parallel", "engine") and not left:
                found[f"{pool}.{head}.{rest}"] = entry
    return kept[0] | found


def _others(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the keys that are not of a pool."""
    own = ("serving.parallel.", "serving.engine.", "serving.cluster.")
    return {key: entry for key, entry in entries.items() if not key.startswith(own)}


def _plain(entries: Mapping[str, Entry]) -> dict[str, Any]:
    return {key: entry.value for key, entry in entries.items()}


def _check_version(engine: str, version: str | None) -> None:
    try:
        known_version(engine, version)
    except ValueError as error:
        raise ScenarioError([Problem("--engine-version", str(error))]) from None


def _copies(count: int) -> str:
    return "" if count == 1 else f"{count} replicas"


def _model(read: EngineRead, wanted: Wanted, file: str) -> tuple[str, Checkpoint]:
    """Return the model's name here, and its checkpoint."""
    known = checkpoint(read.model)
    if wanted.model is not None:
        return wanted.model, known or Checkpoint(model=wanted.model)
    if known is not None:
        return known.model, known
    base = read.model.rpartition("/")[2]
    hint = nearest(base.lower(), named_models())
    message = (
        f"the model '{read.model[:100]}' is not known.{hint} Give it by --as-model NAME "
        "(of moesim models) or FILE (a config.json)"
    )
    raise ScenarioError([Problem("model", message, file, 1, 1)])


def _acceptance(wanted: Wanted, reading: Reading) -> tuple[float, ...] | None:
    """Return the shares of guesses that are accepted; empty for plain decoding."""
    said = wanted.acceptance
    if said is None:
        return None
    if not guesses_anything(reading):
        message = "has no effect: the command line guesses no tokens; leave it out"
        raise ScenarioError([Problem("--acceptance", message)])
    if said == "none":
        return ()
    try:
        shares = tuple(float(one) for one in said.split(","))
    except ValueError:
        shares = (-1.0,)
    if not all(0 <= share <= 1 for share in shares):
        message = f"must be shares from 0 to 1 such as 0.8 or 0.8,0.6, or none, not '{said[:60]}'"
        raise ScenarioError([Problem("--acceptance", message)])
    return shares


def _facts(architecture: Architecture, found: Checkpoint, name: str) -> ModelFacts:
    layers = [(run.layer, run.count) for run in architecture.decoder]
    heads = [
        layer.attention.heads for layer, _ in layers
        if layer.attention is not None and not isinstance(layer.attention, LinearAttention)
    ]  # fmt: skip
    experts = [layer.ffn.num_experts for layer, _ in layers if isinstance(layer.ffn, MoeFfn)]
    return ModelFacts(
        heads=min(heads, default=1), layers=sum(count for _, count in layers),
        experts=max(experts, default=0), formats=found.formats, checkpoint=name,
        mtp_layers=architecture.mtp_layers,
    )  # fmt: skip


def _head(wanted: Wanted, model: str, said: str, cluster: str) -> dict[str, Entry]:
    return {
        "name": Entry(value=wanted.name, why=""),
        "model": Entry(value=model, why=f"{said}, by --as-model" if wanted.model else said),
        "cluster.profile": Entry(value=cluster, why=""),
    }


def _resolved(scenario: ServingScenario) -> tuple[tuple[Resolved, ...], str]:
    try:
        run = resolve(scenario)
    except MoesimError as error:
        return (), str(error).splitlines()[0]
    found: list[Resolved] = []
    for pool in run.pools:
        engine, of = pool.engine, "" if pool.name == "all" else f"{pool.name} "
        values = pool_settings(scenario, pool).values()
        blocks = Resolved("cache_blocks", engine.rules.blocks, "what the device's memory leaves")
        found += [replace(one, name=f"{of}{one.name}") for one in (*values, blocks)]
    full = all(pool.engine.rules.blocks for pool in run.pools)
    return tuple(found), "" if full else "the weights leave no memory for a cache"


def _comment(reads: Sequence[EngineRead], engine: str) -> Sequence[str]:
    program = reads[0].dialect.program
    lines = [f"Imported from {program}'s arguments by `moesim import {engine}`."]
    fates = {str(fate): fate for read in reads for fate in engine_fates(read)}.values()
    left = [fate for fate in fates if fate.kind == "not modelled"]
    if left:
        lines += ["", "Not modelled, and what would change:"]
        lines += [f"  {fate.argument}: {fate.became}" for fate in left]
    notes = dict.fromkeys(note for read in reads for note in read.reading.notes)
    if notes:
        lines += ["", *notes]
    unknown = dict.fromkeys(str(one) for read in reads for one in read.unknown)
    if unknown:
        lines += ["", f"Unknown, left out: {', '.join(unknown)}"]
    return lines
