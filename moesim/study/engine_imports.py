"""An engine's command line as a serving scenario: model and machines looked up, the whole checked.

The workload is not of the command line: a closed loop of random prompts is written, to be changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moesim.errors import MoesimError, Problem, ScenarioError, nearest
from moesim.model.architecture import Architecture, LinearAttention, MoeFfn
from moesim.model.named import load_model, named_models
from moesim.spec.engines.checkpoints import Checkpoint, checkpoint
from moesim.spec.engines.facts import ModelFacts, tokens
from moesim.spec.engines.guesses import guesses_anything
from moesim.spec.engines.read import (
    EngineRead,
    EngineSource,
    engine_fates,
    map_engine,
    read_engine,
)
from moesim.spec.megatron.reading import Entry, Reading
from moesim.spec.megatron.write import plain, scenario_text
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from moesim.study.imports import cluster_of
from moesim.study.serving.engines import Resolved
from moesim.study.serving.presets.lookup import known_version
from moesim.study.serving.resolve import resolve
from moesim.study.serving.settings import resolved_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line of moesim adds."""

    accelerator: str
    """An accelerator or a cluster profile."""
    name: str = "imported"
    devices: int | None = None
    """Left out: one deployment."""
    version: str | None = None
    """Of the engine; left out, the newest known."""
    model: str | None = None
    """The model in place of the checkpoint that is named: of the catalogue, or a file."""
    prompt_tokens: int = 1024
    output_tokens: int = 1024
    in_flight: int = 64
    acceptance: str | None = None
    """Shares of guesses that are accepted: one, one by place with commas, or `none`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineImport:
    """An imported deployment."""

    read: EngineRead
    scenario: str
    """The scenario's YAML."""
    resolved: tuple[Resolved, ...] = ()
    """The engine's settings as they run; empty where moesim cannot simulate it."""
    trouble: str = ""
    """Why moesim cannot simulate it as it stands; empty where it can."""


def import_engine(source: EngineSource, wanted: Wanted) -> EngineImport:
    """Return the command line in `source` as a serving scenario. Raises ScenarioError."""
    cluster = cluster_of(wanted.accelerator)
    read = read_engine(source)
    _check_version(read.dialect.engine, wanted.version)
    model, found = _model(read, wanted, source.file)
    facts = replace(
        _facts(load_model(model), found, read.model), acceptance=_acceptance(wanted, read.reading)
    )
    own = map_engine(read, facts, source.engine)
    for name in ("model", "model-path"):
        if read.reading.has(name):
            read.reading.mapped.add(name)
            read.reading.say(name, f"model: {model}")
    devices = wanted.devices or own
    if devices % own:
        message = f"{devices} is no multiple of the {own} devices that one deployment takes"
        raise ScenarioError([Problem("--devices", message)])
    entries = _head(wanted, model, read.model, cluster) | {
        "cluster.devices": Entry(value=devices, why=_copies(devices // own)),
        "serving.engine.name": Entry(value=read.dialect.engine, why=""),
    }
    if wanted.version is not None:
        entries["serving.engine.version"] = Entry(value=wanted.version, why="--engine-version")
    entries |= read.reading.scenario | _workload(read.reading, wanted)
    resolved, trouble = _resolved(build(ServingScenario, Document(plain(entries))))
    return EngineImport(
        read=read, scenario=scenario_text(entries, _comment(read, source.engine)),
        resolved=resolved, trouble=trouble,
    )  # fmt: skip


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


_LONGEST = ("max-model-len", "context-length", "max-seq-len")


def _workload(reading: Reading, wanted: Wanted) -> dict[str, Entry]:
    """Write a closed loop; shorter where the engine's longest request is."""
    names = [one for one in _LONGEST if reading.has(one)]
    longest = tokens(reading, names[0]) if names else None
    prompt, output = wanted.prompt_tokens, wanted.output_tokens
    why = "moesim's choice, not of the command line: change it"
    if longest is not None and prompt + output > longest:
        prompt, output = max(1, longest // 2), max(1, longest - longest // 2)
        why = f"both together the longest request, {longest} tokens"
    in_flight = _given(reading, "concurrency", wanted.in_flight)
    requests = _given(reading, "num-requests", 10 * in_flight)
    return {
        "serving.workload.arrivals": Entry(value="closed", why=why),
        "serving.workload.in_flight": Entry(value=in_flight, why=_said(reading, "concurrency")),
        "serving.workload.requests": Entry(value=requests, why=_said(reading, "num-requests")),
        "serving.workload.prompt": Entry(value=prompt, why="tokens"),
        "serving.workload.output": Entry(value=output, why="tokens"),
    }


def _given(reading: Reading, name: str, default: int) -> int:
    if reading.has(name):
        reading.mapped.add(name)
    return max(1, reading.count(name, default))


def _said(reading: Reading, name: str) -> str:
    return str(reading.given[name]) if reading.has(name) else ""


def _resolved(scenario: ServingScenario) -> tuple[tuple[Resolved, ...], str]:
    try:
        run = resolve(scenario)
    except MoesimError as error:
        return (), str(error).splitlines()[0]
    values = resolved_values(run.preset, scenario.serving.engine)
    blocks = Resolved("cache_blocks", run.rules.blocks, "what the device's memory leaves")
    trouble = "" if run.rules.blocks else "the weights leave no memory for a cache"
    return (*values.values(), blocks), trouble


def _comment(read: EngineRead, engine: str) -> Sequence[str]:
    lines = [f"Imported from {read.dialect.program}'s arguments by `moesim import {engine}`."]
    left = [fate for fate in engine_fates(read) if fate.kind == "not modelled"]
    if left:
        lines += ["", "Not modelled, and what would change:"]
        lines += [f"  {fate.argument}: {fate.became}" for fate in left]
    if read.reading.notes:
        lines += ["", *read.reading.notes]
    if read.unknown:
        lines += ["", f"Unknown, left out: {', '.join(map(str, read.unknown))}"]
    return lines
