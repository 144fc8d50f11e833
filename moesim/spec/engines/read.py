"""From the text of an engine's command line to the keys of a serving scenario."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from moesim.errors import Problem, ScenarioError
from moesim.spec.engines import sglang_names, trtllm_names, vllm_names
from moesim.spec.engines.dialect import Dialect, Words, read_words, unknown_problem
from moesim.spec.engines.facts import ModelFacts, switched
from moesim.spec.engines.fleet import side_of
from moesim.spec.engines.options import add_options
from moesim.spec.engines.sglang import read_sglang
from moesim.spec.engines.trtllm import read_trtllm
from moesim.spec.engines.vllm import read_vllm
from moesim.spec.megatron.read import Fate
from moesim.spec.megatron.reading import Given, Reading
from moesim.spec.megatron.shell import Word, read_commands, settled
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.yaml_text import read_yaml

Reader = Callable[[Reading, ModelFacts], int]
DIALECTS: Mapping[str, tuple[Dialect, Reader]] = MappingProxyType(
    {
        "vllm": (vllm_names.DIALECT, read_vllm),
        "sglang": (sglang_names.DIALECT, read_sglang),
        "trtllm": (trtllm_names.DIALECT, read_trtllm),
    }
)
"""What each engine's arguments are, and what reads them."""

_PROGRAMS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "vllm": (("vllm", "serve"), ("vllm.entrypoints.openai.api_server",),
                 ("vllm.entrypoints.api_server",), ("vllm", "bench", "throughput"),
                 ("vllm", "bench", "latency")),
        "sglang": (("sglang.launch_server",), ("sglang", "serve"), ("sglang_router.launch_server",),
                   ("sglang.bench_one_batch",)),
        "trtllm": (("trtllm-serve", "serve"), ("trtllm-serve",), ("trtllm-bench",)),
    }
)  # fmt: skip
_FILES = ("config", "extra-llm-api-options")
_SUBCOMMANDS = frozenset({"throughput", "latency", "serve", "build"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSource:
    """What is imported."""

    engine: str
    """vllm, sglang or trtllm."""
    text: str
    file: str = "ARGS"
    variables: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, str] | None = None
    """A YAML of arguments beside the command line, and its file's name."""
    allow_unknown: bool = False
    side: str = ""
    """prefill or decode: the last command of that side; left out, the last command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRead:
    """What the arguments came to."""

    reading: Reading
    dialect: Dialect
    model: str
    """As the command line names it."""
    unknown: tuple[Given, ...]
    devices: int = 1
    """Devices of one deployment."""


def read_engine(source: EngineSource) -> EngineRead:
    """Return the arguments in `source`, read but not mapped yet.

    Raises ScenarioError with all that is unknown or takes another number of values.
    """
    dialect, _ = DIALECTS[source.engine]
    found = read_words(_command(source, dialect), dialect, source.file)
    if source.options is not None:
        text, file = source.options
        add_options(found, read_yaml(text, file), dialect, file)
    problems = list(found.problems)
    if not source.allow_unknown:
        problems += [unknown_problem(one, dialect, source.file) for one in found.unknown]
    model = _model(found, dialect, source.file, problems)
    if problems:
        raise ScenarioError(problems)
    reading = Reading(
        file=source.file, program=dialect.program, schema=ServingScenario, given=found.given
    )
    for one in _FILES:
        if reading.has(one) and source.options is None:
            reading.notes.append(f"{reading.given[one]} was not read: give the file by --file")
    return EngineRead(reading=reading, dialect=dialect, model=model, unknown=tuple(found.unknown))


def map_engine(read: EngineRead, facts: ModelFacts, engine: str) -> int:
    """Write the keys that the arguments come to; return the devices of one deployment.

    Raises ScenarioError with all that is wrong or contradicts itself.
    """
    devices = DIALECTS[engine][1](read.reading, facts)
    if read.reading.problems:
        raise ScenarioError(read.reading.problems)
    return devices


def _command(source: EngineSource, dialect: Dialect) -> tuple[Word, ...]:
    """Return the words behind the engine's name; of a text without it, all words."""
    commands = read_commands(source.text, source.file, source.variables)
    for words in reversed(commands):
        start = _start(words, _PROGRAMS[source.engine])
        if start is not None and source.side in ("", side_of(_said(words))):
            return settled(words[start:], source.file, dialect.silent_values)
    for words in commands:
        other = next((name for name, programs in _PROGRAMS.items()
                      if _start(words, programs) is not None), None)  # fmt: skip
        if other is not None:
            message = f"this is a command of {other}: moesim import {other}"
            raise ScenarioError([Problem("", message, source.file, words[0].line, 1)])
    loose = tuple(word for words in commands for word in words)
    return settled(loose, source.file, dialect.silent_values)


def sides_of(source: EngineSource) -> tuple[EngineSource, ...]:
    """Return a source for prefill and one for decode where the text has commands of both."""
    commands = read_commands(source.text, source.file, source.variables)
    found = {
        side_of(_said(words)) for words in commands
        if _start(words, _PROGRAMS[source.engine]) is not None
    }  # fmt: skip
    sides = ("prefill", "decode")
    return tuple(replace(source, side=one) for one in sides) if found >= set(sides) else ()


def _said(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _start(words: Sequence[Word], programs: Sequence[tuple[str, ...]]) -> int | None:
    plain = [word.text.rpartition("/")[2].removesuffix(".py") for word in words]
    for program in programs:
        for at in range(len(plain) - len(program) + 1):
            if tuple(plain[at : at + len(program)]) == program:
                return at + len(program)
    return None


def _model(found: Words, dialect: Dialect, file: str, problems: list[Problem]) -> str:
    name = "model" if "model" in dialect.mapped_values else "model-path"
    loose = [word for word in found.loose if word.text not in _SUBCOMMANDS]
    if name in found.given:
        said = found.given[name].values[0]
    elif loose:
        said = loose.pop(0).text
    else:
        problems.append(Problem(f"--{name}", "no model is named", file, 1, 1))
        return ""
    for word in loose:
        message = f"'{word.text}' belongs to no argument"
        problems.append(Problem("", message, file, word.line, 1))
    return said


def engine_fates(read: EngineRead) -> list[Fate]:
    """Return what became of every argument, in the order in which they were given."""
    found = [_fate(one, read) for one in read.reading.given.values()]
    return found + [Fate(str(one), "unknown", "nothing") for one in read.unknown]


def _fate(one: Given, read: EngineRead) -> Fate:
    dialect, reading = read.dialect, read.reading
    said = "; ".join(dict.fromkeys(reading.became.get(one.name, ())))
    changed = dialect.unmodelled_flags.get(one.name) or dialect.unmodelled_values.get(one.name)
    if changed is not None:
        off = switched(reading, one.name) is False
        return Fate(str(one), "not modelled", f"switched off; on: {changed}" if off else changed)
    if said.startswith("not modelled: "):
        return Fate(str(one), "not modelled", said.removeprefix("not modelled: "))
    if one.name in reading.mapped:
        return Fate(str(one), "mapped", said)
    return Fate(str(one), "no effect", said or "nothing of time or memory")
