"""Which release stands for a version, and its defaults put together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moesim.study.serving.presets import sglang, tensorrt_llm, vllm
from moesim.study.serving.presets.table import Default, Version

ENGINES: dict[str, Mapping[str, Version]] = {
    "vllm": vllm.VERSIONS,
    "sglang": sglang.VERSIONS,
    "tensorrt-llm": tensorrt_llm.VERSIONS,
}
"""Releases of each engine, oldest first."""


@dataclass(frozen=True, slots=True)
class Found:
    """A known release, and what to say if it only stands for the one asked for."""

    version: str
    note: str = ""


def known_version(name: str, version: str | None) -> Found:
    """Return the release of engine `name` that stands for `version`: itself, or the last before it.

    Left out, the newest. Raises ValueError for what is no version, or older than all known.
    """
    known = list(ENGINES[name])
    if version is None:
        return Found(known[-1])
    asked = _numbers(version)
    if asked is None:
        message = f"'{version}' is no version of {name} such as {known[-1]}"
        raise ValueError(f"{message}; known are {', '.join(known)}")
    return _before(name, version, [one for one in known if (_numbers(one) or ()) <= asked])


_NAMED = ((r"tensorrt|trt-?llm", "tensorrt-llm"), (r"sglang", "sglang"), (r"vllm", "vllm"))
_OF_ANOTHER = (
    (r"dynamo", r"0\.8", "2026-01"), (r"mlperf", r"v4\.1", "2024-08"),
    (r"mlperf", r"v5\.0", "2025-04"), (r"mlperf", r"v5\.1", "2025-09"),
)  # fmt: skip
"""Versions that are another program's or a benchmark's, and their month: from memory, unchecked."""


def published_engine(name: str, version: str | None) -> tuple[str, Found] | None:
    """Return the engine and the release that a publication's words mean; None for other engines.

    A month (`unrecorded-2025-10`) is the newest known release of that month; words without a
    version or a month are the newest known; one older than all known is the oldest.
    """
    engine = next((one for words, one in _NAMED if re.search(words, name.lower())), None)
    if engine is None:
        return None
    return engine, _published(engine, name.lower(), version or "")


def _published(engine: str, name: str, words: str) -> Found:
    table = ENGINES[engine]
    known = list(table)
    month = re.search(r"\b(20\d\d-\d\d)\b", words)
    when = month[1] if month else ""
    for program, version, released in _OF_ANOTHER:
        if re.search(program, f"{name} {words.lower()}") and re.search(version, words):
            when = released
    if when:
        best = [one for one in known if table[one].released <= when][-1:] or known[:1]
        return Found(best[0], f"{engine} '{words}': defaults of {best[0]}, by the month {when}")
    if _numbers(words) is None:
        said = f"'{words}'" if words else "without a version"
        return Found(known[-1], f"{engine} {said}: defaults of {known[-1]}, the newest known")
    try:
        return known_version(engine, words)
    except ValueError as error:
        return Found(known[0], f"{error}: defaults of {known[0]}")


def defaults(name: str, version: str) -> dict[str, Default]:
    """Return the defaults of a known release: its own changes over those of all before it."""
    found: dict[str, Default] = {}
    for one, release in ENGINES[name].items():
        found |= release.changes
        if one == version:
            return found
    raise ValueError(f"no release {version} of {name}")


def _before(name: str, version: str, earlier: list[str]) -> Found:
    if not earlier:
        known = list(ENGINES[name])
        raise ValueError(f"{name} {version} is older than all known: {', '.join(known)}")
    best = earlier[-1]
    asked, have = _numbers(version) or (), _numbers(best) or ()
    if asked[: len(have)] == have:
        return Found(best)
    return Found(best, f"{name} {version}: defaults of {best}, the last known release before it")


def _numbers(text: str) -> tuple[int, ...] | None:
    """Return a version's numbers; what follows them (rc2, .post1) does not count."""
    found = re.match(r"v?(\d+(?:\.\d+)+)(?!\d)", text.strip())
    return None if found is None else tuple(int(part) for part in found[1].split("."))
