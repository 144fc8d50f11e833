"""Cut and damaged files of every format: a result or a CalibrationError, nothing private in it."""

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim import rng
from moesim.calibrate.importers.facts import Facts
from moesim.calibrate.importers.formats import FORMATS, read_file, tables_of
from moesim.calibrate.importers.rows import Imported
from moesim.errors import CalibrationError
from tests.unit.calibrate.importers.samples import H100, SAMPLES, SECRETS

MUTATIONS = 150
FORMAT_OF = {"all_reduce.log": "nccl-tests", "run.json": "nccl-tests", "intranode.log": "deepep",
             "low_latency.log": "deepep", "trace.json": "torch-trace"}  # fmt: skip


def survives(text: str, name: str) -> None:
    """Read damaged text as the format `name`."""
    try:
        found = repr(reader(name)(text, "any.log", H100))
    except CalibrationError as error:
        found = str(error)
        assert found.startswith("any.log")
    assert not any(secret in found for secret in SECRETS)


def reader(name: str) -> Callable[[str, str, Facts], Imported]:
    return next(known.read for known in FORMATS if known.name == name)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_may_end_anywhere(name: str) -> None:
    text = SAMPLES[name]
    for end in range(0, len(text), max(1, len(text) // 300)):
        survives(text[:end], FORMAT_OF[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_bytes_may_change(name: str) -> None:
    draw = rng.stream(7, f"damage to {name}")
    for _ in range(4 * MUTATIONS):
        damaged = _damaged(SAMPLES[name].encode(), draw)
        survives(damaged.decode("utf-8", errors="replace"), FORMAT_OF[name])


def test_bytes_of_a_packed_file_may_change(tmp_path: Path) -> None:
    draw, packed = rng.stream(7, "damage to gzip"), gzip.compress(SAMPLES["run.json"].encode())
    file = tmp_path / "damaged.gz"
    for _ in range(MUTATIONS):
        file.write_bytes(_damaged(packed, draw))
        with suppress(CalibrationError):
            tables_of([read_file(file, H100)])


def _damaged(data: bytes, draw: np.random.Generator) -> bytes:
    """Change one to four bytes."""
    changed = bytearray(data)
    for place in draw.integers(len(changed), size=int(draw.integers(1, 5))):
        changed[place] = int(draw.integers(256))
    return bytes(changed)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.endswith(".json")])
def test_values_may_be_of_any_kind(name: str) -> None:
    draw = rng.stream(8, f"other values in {name}")
    odd: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        2.5,
        1e308,
        10**400,
        "nan",
        "",
        "x",
        [],
        {},
        [[]],
        [None],
        {"a": []},
    )
    for _ in range(3 * MUTATIONS):
        document = json.loads(SAMPLES[name])
        places = _places(document)
        for pick in draw.integers(len(places), size=int(draw.integers(1, 4))):
            owner, key = places[int(pick)]
            owner[key] = odd[int(draw.integers(len(odd)))]
        survives(json.dumps(document), FORMAT_OF[name])


def _places(value: object) -> "list[tuple[dict[object, object], object]]":
    """Return every place in a document that a value can be put in."""
    if isinstance(value, list):
        owner: dict[object, object] = value  # type: ignore[assignment]
        inner: list[tuple[object, object]] = list(enumerate(value))
    elif isinstance(value, dict):
        owner, inner = value, list(value.items())
    else:
        return []
    found: list[tuple[dict[object, object], object]] = [(owner, key) for key, _ in inner]
    return found + [place for _, below in inner for place in _places(below)]


@settings(max_examples=150)
@given(st.sampled_from([known.name for known in FORMATS]), st.data())
def test_lines_in_any_order(name: str, data: st.DataObject) -> None:
    lines = [line for text in SAMPLES.values() for line in text.splitlines()]
    survives("\n".join(data.draw(st.lists(st.sampled_from(lines), max_size=40))), name)
