"""Reads the keys of a config.json and refuses to guess: a missing or odd size is a ModelError."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from moesim.errors import ModelError

MAX_SIZE = 10**9
"""No width, head count or vocabulary of a network comes near; larger is a slip or an attack."""
MAX_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Config:
    """A parsed config.json, or a part of one, that knows how to complain about its keys."""

    data: Mapping[str, Any]
    model_type: str
    name: str
    source: str
    prefix: str = ""

    def fail(self, key: str, message: str) -> NoReturn:
        """Raise a ModelError about `key`."""
        raise ModelError(
            f"{self.source}: model_type '{self.model_type}', key '{self.prefix}{key}': {message}"
        )

    def first(self, *keys: str) -> tuple[str, Any]:
        """Return the first of `keys` that is there and not null, and its value (else None)."""
        for key in keys:
            if self.data.get(key) is not None:
                return key, self.data[key]
        return keys[0], None

    def size(self, *keys: str) -> int:
        """Return a whole number of at least 1; `keys` are spellings of the same thing."""
        return self._whole(self._required(keys), minimum=1)

    def count(self, *keys: str) -> int:
        """Return a whole number of at least 0."""
        return self._whole(self._required(keys), minimum=0)

    def optional_size(self, *keys: str) -> int | None:
        """Return a whole number of at least 1, or None where the key is absent or null."""
        found = self.first(*keys)
        return None if found[1] is None else self._whole(found, minimum=1)

    def optional_count(self, *keys: str) -> int:
        """Return a whole number of at least 0; absent or null is 0, "there are none of these"."""
        found = self.first(*keys)
        return 0 if found[1] is None else self._whole(found, minimum=0)

    def layers(self, *keys: str) -> int:
        """Return a number of layers."""
        key, value = self._required(keys)
        number = self._whole((key, value), minimum=1)
        if number > MAX_LAYERS:
            self.fail(key, f"{number} layers; at most {MAX_LAYERS} are accepted")
        return number

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false; callers say in a comment why `default` is what absence means."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(key, f"must be true or false, not {_shown(value)}")
        return value

    def text(self, key: str, default: str = "") -> str:
        """Return a text; `default` where the key is absent or null."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(key, f"must be text, not {_shown(value)}")
        return value

    def numbers(self, key: str) -> tuple[int, ...]:
        """Return a list of whole numbers; absent or null is the empty list."""
        found = self._list(key)
        return tuple(self._whole((f"{key}[{i}]", item), minimum=0) for i, item in enumerate(found))

    def words(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; absent or null is the empty list."""
        found = self._list(key)
        for item in found:
            if not isinstance(item, str):
                self.fail(key, f"must be a list of texts, not of {_shown(item)}")
        return tuple(found)

    def part(self, key: str) -> "Config":
        """Return the object below `key`."""
        value = self.data.get(key)
        if not isinstance(value, Mapping):
            self.fail(key, "must be an object" if key in self.data else "is missing")
        return Config(value, self.model_type, self.name, self.source, f"{self.prefix}{key}.")

    def language_model(self) -> "Config":
        """Return the text part of a multimodal config, or the config itself where it is text."""
        return self.part("text_config") if "text_config" in self.data else self

    def _required(self, keys: Sequence[str]) -> tuple[str, Any]:
        key, value = self.first(*keys)
        if value is None:
            also = "".join(f" (or '{other}')" for other in keys[1:])
            # Class defaults describe some other model, so they never stand in for a size.
            self.fail(key, f"is missing{also}; moesim never fills a size from a default")
        return key, value

    def _whole(self, found: tuple[str, Any], minimum: int) -> int:
        key, value = found
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"must be a whole number, not {_shown(value)}")
        if not minimum <= value <= MAX_SIZE:
            self.fail(key, f"must be from {minimum} to {MAX_SIZE}, not {_shown(value)}")
        return value

    def _list(self, key: str) -> list[Any]:
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(key, f"must be a list, not {_shown(value)}")
        if len(value) > MAX_LAYERS:
            self.fail(key, f"has {len(value)} entries; at most {MAX_LAYERS} are accepted")
        return value


def _shown(value: object) -> str:
    """Return `value` for a message, cut short; str() of a huge int may itself be refused."""
    if isinstance(value, int) and abs(value) > 10**30:
        return "a huge number"
    if isinstance(value, (Mapping, list)):
        return "an object" if isinstance(value, Mapping) else "a list"
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"
