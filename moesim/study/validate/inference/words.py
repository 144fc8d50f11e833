"""What an inference case says, read with a row of its table: rows may overrule the case."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moesim.spec.cases import Case
from moesim.study.validate.figures import number
from moesim.study.validate.machines import cluster_named
from moesim.study.validate.skipped import SkippedError

Row = Mapping[str, Any]

LARGEST = 10**6
"""Ranks, sequences and the like beyond which a figure is no count of these."""


@dataclass(slots=True)
class Said:
    """A case and one of its rows."""

    case: Case
    row: Row = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)

    def text(self, part: str, key: str) -> str:
        """Return what stands under `part.key` as text; empty for nothing."""
        value = self.case.part(part).get(key)
        return "" if value is None else str(value)

    def words(self, key: str, *, part: str = "precision") -> str:
        """Return a text of the row, else of a part of the case; empty where it says `see rows`."""
        value = self.row.get(key)
        if isinstance(value, str) and value:
            return value
        found = self.text(part, key)
        return "" if "see row" in found.casefold() else found

    def count(self, *names: str, part: str = "parallel") -> int | None:
        """Return the first of these counts in the row, then in a part of the case."""
        for words in (self.row, self.case.part(part)):
            for name in names:
                found = number(words.get(name))
                if found is not None and 1 <= found <= LARGEST and found == int(found):
                    return int(found)
        return None

    def figure(self, *names: str, part: str = "workload") -> float | None:
        """Return the first of these figures in the row, then in a part of the case."""
        for words in (self.row, self.case.part(part)):
            for name in names:
                found = number(words.get(name))
                if found is not None and found > 0:
                    return found
        return None

    def assume(self, text: str) -> None:
        """Note what had to be assumed, once."""
        if text not in self.assumed:
            self.assumed.append(text)


def rows(case: Case) -> list[Row]:
    """Return the rows of a table as mappings; one row of all figures where there is no table."""
    measured = case.part("measured")
    columns, table = measured.get("columns"), measured.get("rows")
    if not isinstance(columns, list) or not isinstance(table, list):
        return [{str(name): value for name, value in measured.items()}]
    names = [str(one) for one in columns]
    return [
        dict(zip(names, line, strict=False)) for line in table if isinstance(line, list) and line
    ]


def chip_of(said: Said) -> str:
    """Return the cluster profile of the chip that a case names; SkippedError for unknown ones."""
    name = said.text("hardware", "chip") or said.case.text("hardware")
    if re.search(r"\b(pre-|3090|npu|ascend)", name.casefold()):
        raise SkippedError(f"no machine profile for the hardware '{name[:80]}'")
    found = cluster_named(name)
    if found is None:
        raise SkippedError(f"no machine profile for the hardware '{name[:80]}'")
    if " at " in name:
        said.assume(f"{name}: the power limit is not modelled")
    if "gh200" in name.casefold() and "144" in name:
        said.assume("GH200 with 144 GB: run as one with 96 GB")
    return found


_ENGINES = (("vllm", "vllm"), ("sglang", "sglang"), ("trtllm", "tensorrt-llm"),
            ("tensorrt", "tensorrt-llm"))  # fmt: skip


def engine_of(said: Said) -> str:
    """Return the preset of the engine that a case or its row names; SkippedError for others."""
    name = said.words("engine", part="") or said.text("engine", "name") or said.case.text("engine")
    lower = name.casefold()
    if "fastgen" not in lower and "(not seen)" not in lower:
        for word, engine in _ENGINES:
            if word in lower:
                return engine
    raise SkippedError(f"no preset of the engine '{name[:80]}'")


def software_of(case: Case) -> str:
    """Return engine and version of a case in a few words, for the tables of scores."""
    engine = case.part("engine")
    name = str(engine.get("name") or "")
    for word, short in _ENGINES:
        if word in name.casefold():
            name = short
            break
    version = engine.get("version")
    return f"{name} {version}".strip()[:60] if version else name[:60]
