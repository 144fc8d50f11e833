"""Arguments in a YAML file beside the command line: TensorRT-LLM's LLM API options, --config."""

from collections.abc import Iterator

from moesim.spec.engines.dialect import Dialect, Words, add
from moesim.spec.megatron.reading import Given
from moesim.spec.yaml_text import Document


def add_options(found: Words, options: Document, dialect: Dialect, file: str) -> None:
    """Add the keys of a YAML file; what the command line says goes before them."""
    own = dict(found.given)
    for path, value in _flat(options.data, ()):
        plain = ".".join(path).replace("_", "-")
        name, texts = dialect.aliases.get(plain, plain), _texts(value)
        if value is None and _holds(dialect, name):
            if name not in dialect.nulls:
                continue  # as if it were left out
            texts = ("null",)
        bare = name.removeprefix("no-")
        if bare != name and name not in dialect.flags and bare in dialect.flags:
            name, texts = bare, ("true" if texts == ("false",) else "false",)
        line = options.at(path)[1] or 1
        add(found, Given(name, texts, line, file), dialect, file)
    found.given |= own


def _holds(dialect: Dialect, name: str) -> bool:
    """Tell whether a name is an argument's, or that of an object with arguments below it."""
    return any(one == name or one.startswith(f"{name}.") for one in dialect.flags | dialect.values)


def _flat(data: object, outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _flat(value, (*outer, str(key)))
    elif outer:
        yield outer, data


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return (str(value).lower(),)
    if isinstance(value, list):
        return (" ".join(map(str, value)),)
    return () if value is None else (str(value),)
