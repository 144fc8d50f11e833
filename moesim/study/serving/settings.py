"""Every setting of an engine as it runs: its value, and where that comes from.

What an engine has and moesim does not simulate is a row too, and says so.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from moesim.spec.engines.graph_sizes import captured
from moesim.spec.serving.engine import EngineSpec
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.engines import THE_SCENARIO, Preset, Resolved
from moesim.study.serving.pools import PoolRun
from moesim.study.serving.presets.table import Value

NOT_MODELLED = "not modelled"
_PLAIN = ("batching", "max_sequences", "token_budget", "block_tokens", "memory_fraction")
_MEMORY = MappingProxyType(
    {
        "all": "of the memory, for weights, activations and cache",
        "static": "of the memory, for weights and cache",
        "free": "of what weights and activations leave, for the cache",
    }
)
_ORDER = MappingProxyType(
    {
        "mixed": "decoding first, chunks of prompts in what is left of the token budget",
        "prefill_first": "chunks of prompts alone before decoding",
        "whole_prompts": "decoding first, prompts only whole in what is left of the token budget",
        "static": "the next batch when all of the last have finished",
    }
)


def resolved_values(preset: Preset, asked: EngineSpec) -> dict[str, Resolved]:
    """Return every setting by its key in `serving.engine`: what the scenario says, or the default.

    Behind these: the exchange of serving.parallel, the scheduler in words, what is not modelled.
    """
    default = {one.name: one for one in preset.resolved}
    rows = [
        _engine(preset, asked),
        *(_row(default[key], getattr(asked, key)) for key in _PLAIN),
        Resolved("memory_of", _MEMORY[preset.memory_of], default["memory_of"].source),
        _left_out("balance_steps", asked.balance_steps, 0, "prompts wait for no other rank"),
        _left_out("overlap", asked.overlap if asked.overlap != "none" else None, "none",
                  "nothing runs beside the exchange"),
        _row(default["reserve_output"], asked.reserve_output),
        _left_out("max_model_tokens", asked.max_model_tokens, "what the cache holds",
                  "the engine's own limit, the model's context, is not modelled"),
        _row(default["prefix_caching"], asked.prefix_caching),
        *_graphs(preset, asked, default["graph_batch"]),
        _row(default["async_scheduling"], asked.async_scheduling),
        _left_out("speculative", _guesses(asked), "none", "one token a step"),
        default["exchange"],
        *_scheduler(preset, asked, default),
    ]  # fmt: skip
    return {one.name: one for one in rows}


def asked_of(scenario: ServingScenario, pool: str) -> EngineSpec:
    """Return the engine that a scenario asks for in a pool, by the pool's name."""
    own = getattr(scenario.serving.cluster, pool, None)
    return scenario.serving.engine if own is None or own.engine is None else own.engine


def pool_settings(scenario: ServingScenario, pool: PoolRun) -> dict[str, Resolved]:
    """Return the settings of a pool's engine; what has no effect on one side says so."""
    found = resolved_values(pool.engine.preset, asked_of(scenario, pool.name))
    if pool.name == "decode":
        found["prefix_caching"] = Resolved(
            "prefix_caching", False, "replicas that only decode keep no prefixes of their own"
        )
    if pool.name == "prefill":
        for key in ("balance_steps", "graphs", "graph_sizes", "speculative"):
            found[key] = Resolved(key, "none", "no effect: nobody decodes here")
    return found


def not_modelled(found: Mapping[str, Resolved]) -> list[str]:
    """Return the settings that are not simulated, in words."""
    return [
        str(one.value) if isinstance(one.value, str)
        else f"{one.name} ({'yes' if one.value else 'no'})"
        for one in found.values()
        if one.source.startswith(NOT_MODELLED)
    ]  # fmt: skip


def _engine(preset: Preset, asked: EngineSpec) -> Resolved:
    version = preset.version if not preset.note else f"{preset.version} ({preset.note})"
    newest = asked.version is None
    source = "the newest version known" if newest else THE_SCENARIO
    return Resolved("engine", f"{preset.name} {version}", source)


def _row(default: Resolved, given: Value | None) -> Resolved:
    return default if given is None else Resolved(default.name, given, THE_SCENARIO)


def _left_out(name: str, given: Value | None, value: Value, why: str) -> Resolved:
    """Return a setting that no version's table has: off unless the scenario says it."""
    if given is None:
        return Resolved(name, value, f"left out: {why}")
    return Resolved(name, given, THE_SCENARIO)


def _graphs(preset: Preset, asked: EngineSpec, default: Resolved) -> Iterator[Resolved]:
    off = asked.graphs is False
    sizes = asked.graph_sizes or captured(preset.name, preset.graph_batch)
    why = "the engine's default" if sizes else "compiled code is launched as fast: assumed"
    yield Resolved("graphs", not off, THE_SCENARIO if asked.graphs is not None else why)
    if off:
        yield Resolved("graph_sizes", "none", THE_SCENARIO)
    elif not sizes:
        yield Resolved("graph_sizes", "any: launched from compiled code", default.source)
    else:
        given = asked.graph_sizes is not None
        yield Resolved("graph_sizes", _sizes(sizes), THE_SCENARIO if given else default.source)


def _sizes(sizes: tuple[int, ...]) -> str:
    """Return sizes in words, such as "1 2 4 8 to 512 (51 sizes)"."""
    if len(sizes) <= 8:
        return " ".join(map(str, sizes))
    return f"{' '.join(map(str, sizes[:4]))} to {sizes[-1]} ({len(sizes)} sizes)"


def _guesses(asked: EngineSpec) -> str | None:
    spec = asked.speculative
    if spec is None:
        return None
    by = "the model's own module" if spec.mtp else spec.draft_model
    return f"{spec.draft_tokens} guesses by {by}, {spec.expected:.3g} tokens a step"


def _scheduler(
    preset: Preset, asked: EngineSpec, default: Mapping[str, Resolved]
) -> Iterator[Resolved]:
    batching = asked.batching or preset.batching
    held = preset.reserve_output if asked.reserve_output is None else asked.reserve_output
    lost = (
        "nobody is preempted" if held
        else "who finds no block is preempted, the last first, and computed again"
    )  # fmt: skip
    yield Resolved("scheduler", f"{_ORDER[batching]}, in order of arrival; {lost}",
                   "said by batching and reserve_output")  # fmt: skip
    yield _chunks(batching, default["chunked_prefill"], own=asked.batching is None)
    habit = default["habit"]
    if habit.value:
        yield Resolved("habit", habit.value, f"{NOT_MODELLED}; {habit.source}")


def _chunks(batching: str, default: Resolved, *, own: bool) -> Resolved:
    """Return whether prompts are cut, which `batching` says; engines may differ."""
    cut = batching in ("mixed", "prefill_first")
    if not own or cut == default.value:
        return Resolved(default.name, cut, "said by batching")
    what = "prompts above the token budget are cut here" if cut else "prompts are whole here"
    return Resolved(default.name, default.value, f"{NOT_MODELLED}: {what}; {default.source}")
