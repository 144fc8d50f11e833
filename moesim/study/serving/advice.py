"""What would make a serving run fit that does not: single changes, or the fewest together."""

from collections.abc import Iterator
from dataclasses import dataclass

from moesim.cost.iteration import PS_PER_S, step_ps
from moesim.cost.serving.residence import experts_of
from moesim.errors import MoesimError
from moesim.spec.serving.engine import EngineSpec
from moesim.spec.serving.offload import OffloadSpec
from moesim.spec.serving.parallel import ServingParallelSpec
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.memory import DeviceMemory, device_memory
from moesim.study.serving.resolve import Serving, resolve
from moesim.study.serving.simulate import times_of

WEIGHTS = ("fp8", "int4_weight_only")
"""Formats that weights are tried in; fp8_block128 in place of fp8 where a scenario has it."""
FRACTION = 0.95
"""Share of the memory that an engine is given at most: more leaves too little for what others
take (vLLM, --gpu-memory-utilization: 0.92 by default; assumed)."""
SEQUENCES = 8
"""Sequences on a rank of the decode iteration that tells how much a change costs."""

_WIDTH, _DEPTH = 4, 3
"""How many ways are followed where no single change is enough, and changes together at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change, with what it leaves missing."""

    settings: tuple[str, ...]
    """What is set, as --set takes it."""
    saved_bytes: float
    """What is free on the fullest device that was not, or lacks less; beyond what is enough."""
    missing_bytes: float
    """What still lacks."""
    cache_tokens: int
    """Tokens that the cache of a replica has room for then."""
    devices: int
    decode_s: float
    """A decode iteration of SEQUENCES sequences on a rank."""
    together: int = 1
    """How many changes it is."""

    @property
    def fits(self) -> bool:
        """Whether it is enough."""
        return self.missing_bytes <= 0


@dataclass(frozen=True, slots=True)
class _Tried:
    settings: tuple[str, ...]
    run: Serving
    memory: DeviceMemory
    changes: int


def advice(run: Serving, longest_tokens: int, context_tokens: int) -> tuple[Change, ...]:
    """Return the changes that make a difference: what fits, the fastest first, then the rest.

    Where no single one is enough, several together come first that are. The decode iteration that
    tells what each costs has `context_tokens` in the cache of each sequence.
    """
    before = _Tried((), run, device_memory(run, longest_tokens), 0)
    singles = list(_tried(before))
    enough = any(one.memory.fits for one in singles)
    found = singles if enough else [*_together(singles), *singles]
    changes = [_change(one, before, context_tokens) for one in found]
    return tuple(sorted(changes, key=lambda one: (not one.fits, one.decode_s if one.fits else 0.0,
                                                  one.missing_bytes)))  # fmt: skip


def _room(run: Serving, name: str) -> float:
    return next(pool for pool in run.pools if pool.name == name).engine.memory.room


def _change(tried: _Tried, before: _Tried, context_tokens: int) -> Change:
    pool = tried.run.pools[-1].engine
    ps = step_ps(times_of(pool).lines(SEQUENCES), SEQUENCES * context_tokens)
    lacks = before.memory.missing_bytes - tried.memory.missing_bytes
    room = _room(tried.run, before.memory.pool) - _room(before.run, before.memory.pool)
    return Change(
        settings=tried.settings, saved_bytes=max(lacks, room),
        missing_bytes=tried.memory.missing_bytes, cache_tokens=tried.memory.cache_tokens,
        devices=tried.run.cluster.topology.devices, decode_s=ps / PS_PER_S, together=tried.changes,
    )  # fmt: skip


def _tried(start: _Tried) -> Iterator[_Tried]:
    """Yield what is reached by one change more, of a key that has not changed yet."""
    done = {setting.partition("=")[0] for setting in start.settings}
    for settings, scenario in _candidates(start.run, start.memory.pool):
        if settings[0].partition("=")[0] in done:
            continue
        try:
            changed = resolve(scenario, start.run.deployment.architecture)
            after = device_memory(changed, start.memory.longest_tokens)
        except MoesimError:
            continue
        if after.missing_bytes < start.memory.missing_bytes:
            others = [one for one in start.settings if not one.startswith("cluster.devices=")]
            if len(settings) == 1:
                others = list(start.settings)
            yield _Tried((*others, *settings), changed, after, start.changes + 1)


def _together(singles: list[_Tried]) -> list[_Tried]:
    """Return a few ways to fit by the fewest changes, followed from those that save most."""
    ways = singles
    for _ in range(_DEPTH - 1):
        ways = sorted(ways, key=lambda way: way.memory.missing_bytes)[:_WIDTH]
        further = {frozenset(one.settings): one for way in ways for one in _tried(way)}
        ways = list(further.values())
        enough = [way for way in ways if way.memory.fits]
        if enough:
            return enough[:_WIDTH]
    return []


Candidate = tuple[tuple[str, ...], ServingScenario]


def _candidates(run: Serving, pool: str) -> Iterator[Candidate]:
    """Yield what is set, and the scenario with it; layouts and limits are those of a pool."""
    yield from _layouts(run, pool)
    yield from _formats(run)
    yield from _limits(run, pool)
    yield from _offloads(run)


def _layouts(run: Serving, name: str) -> Iterator[Candidate]:
    """Yield wider replicas, as many of them as before where the cluster is too small for that."""
    pool = next(one for one in run.pools if one.name == name)
    cut, devices = pool.engine.deployment.cut, run.cluster.topology.devices
    wider = [{"tp": cut.tp * 2}, {"tp": cut.tp * 4}, {"pp": cut.pp * 2}]
    if cut.dp > 1:
        wider += [{"dp": cut.dp * 2, "ep": cut.ep * 2}]
    elif run.deployment.architecture.is_moe:
        wider += [{"ep": cut.tp}]
    for update in wider:
        old = _parallel_of(run.scenario, name)
        values = {**old.model_dump(), **update}
        parallel = ServingParallelSpec(**values)
        width = parallel.tp * parallel.dp * parallel.pp
        more = pool.replicas * (width - pool.engine.width)
        fixed = len(run.pools) > 1 or run.scenario.serving.cluster.replicas is not None
        need = devices + more if fixed else max(devices, width)
        key = "serving.parallel" if name == "all" else f"serving.cluster.{name}.parallel"
        settings = [f"{key}.{degree}={value}" for degree, value in update.items()]
        if need != devices:
            settings.append(f"cluster.devices={need}")
        yield tuple(settings), _with_devices(_with_parallel(run.scenario, name, parallel), need)


def _parallel_of(scenario: ServingScenario, name: str) -> ServingParallelSpec:
    own = None if name == "all" else getattr(scenario.serving.cluster, name).parallel
    return own or scenario.serving.parallel


def _with_parallel(
    scenario: ServingScenario, name: str, parallel: ServingParallelSpec
) -> ServingScenario:
    return _with_part(scenario, name, "parallel", parallel)


def _with_part(
    scenario: ServingScenario, name: str, part: str, value: ServingParallelSpec | EngineSpec
) -> ServingScenario:
    """Return the scenario with the layout or the engine of a pool changed."""
    serving = scenario.serving
    if name == "all":
        changed = serving.model_copy(update={part: value})
    else:
        pool = getattr(serving.cluster, name).model_copy(update={part: value})
        cluster = serving.cluster.model_copy(update={name: pool})
        changed = serving.model_copy(update={"cluster": cluster})
    return scenario.model_copy(update={"serving": changed})


def _with_devices(scenario: ServingScenario, devices: int) -> ServingScenario:
    choice = scenario.cluster.model_copy(update={"devices": devices})
    return scenario.model_copy(update={"cluster": choice})


def _formats(run: Serving) -> Iterator[Candidate]:
    """Yield narrower weights of all that is not narrower yet, and a narrower cache."""
    spec = run.scenario.serving.formats
    for number in WEIGHTS:
        if number != spec.weights and not (number == "fp8" and spec.weights != "bf16"):
            yield _formatted(run, {"weights": number})
    if run.deployment.architecture.is_moe and (spec.experts or spec.weights) not in WEIGHTS[1:]:
        yield _formatted(run, {"experts": "int4_weight_only"})
    if spec.cache == "bf16":
        yield _formatted(run, {"cache": "fp8"})


def _formatted(run: Serving, update: dict[str, str]) -> Candidate:
    serving = run.scenario.serving
    changed = serving.model_copy(update={"formats": serving.formats.model_copy(update=update)})
    settings = tuple(f"serving.formats.{key}={value}" for key, value in update.items())
    return settings, run.scenario.model_copy(update={"serving": changed})


def _limits(run: Serving, name: str) -> Iterator[Candidate]:
    """Yield fewer tokens and sequences at once, and a larger share of the memory."""
    pool = next(one for one in run.pools if one.name == name)
    rules, preset = pool.engine.rules, pool.engine.preset
    own = None if name == "all" else getattr(run.scenario.serving.cluster, name).engine
    spec: EngineSpec = own or run.scenario.serving.engine
    key = "serving.engine" if name == "all" or own is None else f"serving.cluster.{name}.engine"
    where = "all" if own is None else name
    changes: list[tuple[str, int | float]] = [
        ("token_budget", max(1, rules.token_budget // 4)),
        ("max_sequences", max(1, rules.max_sequences // 4)),
    ]
    if (spec.memory_fraction or preset.memory_fraction) < FRACTION:
        changes.append(("memory_fraction", FRACTION))
    for part, value in changes:
        changed = spec.model_copy(update={part: value})
        yield (f"{key}.{part}={value}",), _with_part(run.scenario, where, "engine", changed)


def _offloads(run: Serving) -> Iterator[Candidate]:
    """Yield a quarter of the experts outside device memory, half, three quarters, and all."""
    experts, spec = experts_of(run.deployment), run.scenario.serving.offload
    if not experts:
        return
    had = experts if spec is None else spec.resident_experts
    for resident in sorted({had * part // 4 for part in range(4)} - {had}, reverse=True):
        changed = (spec or OffloadSpec(resident_experts=resident)).model_copy(
            update={"resident_experts": resident}
        )
        serving = run.scenario.serving.model_copy(update={"offload": changed})
        settings = (f"serving.offload.resident_experts={resident}",)
        yield settings, run.scenario.model_copy(update={"serving": serving})
