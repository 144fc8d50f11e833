"""From the text of a Megatron-LM run to the keys of a scenario and of its model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from moesim.errors import Problem, ScenarioError
from moesim.spec.megatron import silent, unmodelled
from moesim.spec.megatron.arguments import (
    MAPPED_FLAGS,
    MAPPED_VALUES,
    read_arguments,
    unknown_problem,
)
from moesim.spec.megatron.cut import read_cut
from moesim.spec.megatron.network import read_network
from moesim.spec.megatron.reading import Given, Reading
from moesim.spec.megatron.routes import read_routes
from moesim.spec.megatron.shell import Command, Word, read_command
from moesim.spec.megatron.step import read_step

_MAPPED = MAPPED_FLAGS | MAPPED_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is imported, and what the command line of moesim adds to it."""

    text: str
    file: str = "ARGS"
    variables: Mapping[str, str] = field(default_factory=dict)
    devices: int | None = None
    """Left out: nodes times processes per node of the launcher."""
    allow_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What the arguments came to."""

    reading: Reading
    devices: int
    unknown: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Fate:
    """What an argument became."""

    argument: str
    kind: str
    """mapped, no effect, not modelled or unknown."""
    became: str


def read_megatron(source: Source, spread: Callable[[int], float]) -> Imported:
    """Return the keys that the arguments in `source` come to.

    `spread` gives the coefficient of variation of a trained router's loads by number of experts.
    Raises ScenarioError with all that is unknown, wrong or contradicts itself.
    """
    command = read_command(source.text, source.file, source.variables)
    found = read_arguments(command.words, source.file)
    problems = list(found.problems)
    if not source.allow_unknown:
        problems += [unknown_problem(one, source.file) for one in found.unknown]
    if problems:
        raise ScenarioError(problems)
    reading = Reading(file=source.file, given=found.given)
    devices = _devices(source, command, reading)
    read_network(reading)
    if not reading.problems:
        read_cut(reading, devices)
        read_step(reading, devices)
        read_routes(reading, spread(reading.count("num-experts", 1)))
    if reading.problems:
        raise ScenarioError(reading.problems)
    reading.notes += [
        f"without --{name}: {text}" for name, text in unmodelled.ABSENT.items()
        if not reading.has(name) and _matters(name, reading)
    ]  # fmt: skip
    return Imported(reading=reading, devices=devices, unknown=found.unknown)


def _matters(name: str, reading: Reading) -> bool:
    return reading.has("multi-latent-attention" if name == "qk-layernorm" else "num-experts")


_NODES, _PROCESSES = ("--nnodes",), ("--nproc-per-node", "--nproc_per_node")


def _devices(source: Source, command: Command, reading: Reading) -> int:
    """Return the devices: given, or of the launcher, or --world-size."""
    if source.devices is not None:
        return source.devices
    nodes = _launched(command.launcher, _NODES)
    processes = _launched(command.launcher, _PROCESSES)
    if processes is not None:
        return processes * (1 if nodes is None else nodes)
    if reading.has("world-size"):
        return max(1, reading.count("world-size"))
    message = (
        "the number of devices is not said: give --devices N, or the launcher's --nnodes and "
        "--nproc-per-node"
    )
    raise ScenarioError([Problem("", message, source.file, 1, 1)])


def _launched(words: tuple[Word, ...], names: tuple[str, ...]) -> int | None:
    """Return the number after (or behind =) one of the launcher's options."""
    for number, word in enumerate(words):
        name, equals, value = word.text.partition("=")
        if name in names:
            text = value if equals else (words[number + 1].text if words[number + 1 :] else "")
            return int(text) if text.isdigit() and int(text) > 0 else None
    return None


def fates(imported: Imported) -> list[Fate]:
    """Return what became of every argument, in the order in which they were given."""
    reading = imported.reading
    found = [_fate(one, reading) for one in reading.given.values()]
    return found + [Fate(str(one), "unknown", "nothing") for one in imported.unknown]


def _unsaid(name: str) -> str:
    """Return what to say of an argument that moesim takes for granted, or that says a default."""
    return "moesim takes it for granted" if name in unmodelled.ABSENT else "nothing of a step"


def _fate(one: Given, reading: Reading) -> Fate:
    name = one.name
    if name in unmodelled.FLAGS or name in unmodelled.VALUES:
        what = unmodelled.FLAGS.get(name) or unmodelled.VALUES[name]
        return Fate(str(one), "not modelled", what)
    said = [text for text in reading.became.get(name, ()) if text]
    if name in reading.left:
        return Fate(str(one), "not modelled", "; ".join(said))
    if name in _MAPPED:
        kind = "mapped" if name in reading.mapped else "no effect"
        return Fate(str(one), kind, "; ".join(dict.fromkeys(said)) or _unsaid(name))
    return Fate(str(one), "no effect", silent.REASONS.get(name, "nothing of a step"))
