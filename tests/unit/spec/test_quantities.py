"""Quantities in the schema: text with a unit in, base units inside, the same number out."""

import re

import pytest
from pydantic import ValidationError

from moesim import units
from moesim.spec.base import Spec
from moesim.spec.quantities import Bytes, BytesPerS, Seconds


class Sample(Spec):
    """A class with quantities."""

    size: Bytes
    rate: BytesPerS = 1.0
    time: Seconds | None = None


def error(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Sample.model_validate({"size": "1 B", **values})
    return str(caught.value)


def test_text_is_read_into_base_units() -> None:
    sample = Sample.model_validate({"size": "80 GiB", "rate": "400 Gb/s", "time": "9 us"})
    assert (sample.size, sample.rate, sample.time) == (85_899_345_920.0, 50e9, 9e-6)


def test_what_is_written_is_read_back_equal() -> None:
    sample = Sample.model_validate({"size": "0.1 GiB", "time": "0 s"})
    assert Sample.model_validate(sample.model_dump(mode="json")) == sample


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-1 GB", "'-1 GB' is negative; write for example '80 GiB'"),
        ("1e51 B", "'1e51 B' is too large"),
        ("1e-51 B", "'1e-51 B' is too small"),
        ("1 gib", "unknown unit 'gib'; write for example '80 GiB'. Did you mean 'GiB' or 'Gib'?"),
        ("1 Gigabyte", "unknown unit 'Gigabyte'"),
        ("1 GIBB", "unknown unit 'GIBB'; write for example '80 GiB'."),
        ("1" + " " * 100_000 + "x y", "is too long for a quantity"),
        (12, "write a number with its unit, for example '80 GiB'"),
    ],
)
def test_a_wrong_quantity_shows_the_right_form(text: object, says: str) -> None:
    assert says in error(size=text)


@pytest.mark.parametrize("text", ["1e50 B", "1e-50 B", "0 B", "1e-400 B"])
def test_the_limits_themselves_are_allowed(text: str) -> None:
    assert Sample.model_validate({"size": text}).size == units.parse(text, "bytes")


def test_the_json_schema_knows_the_same_spellings() -> None:
    schema = Sample.model_json_schema()["properties"]
    for text in ("80 GiB", "80GiB", " 1.5e3  kB ", "+2 b", ".5 MB", "5. bit"):
        assert re.search(schema["size"]["pattern"], text)
    for text in ("80", "GiB", "-1 GB", "80 gb", "80 KB", "80 GB/s", "nan B"):
        assert not re.search(schema["size"]["pattern"], text)
    assert schema["size"]["examples"] == ["80 GiB"]
