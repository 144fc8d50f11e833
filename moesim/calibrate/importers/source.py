"""Reads the files of other tools: plain or gzip, never more than fits, errors with a place.

What such a file says about a machine and its users (environment variables, host names, process
numbers, paths) stands in no error message: messages name a place and a column, never the content.
"""

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from moesim.errors import CalibrationError

MAX_FILE_BYTES = 2**30
"""Of the file as it lies on the disk."""

MAX_TEXT_BYTES = 2**31
"""Of what a compressed file holds."""

_GZIP = b"\x1f\x8b"
_CHUNK_BYTES = 2**20

_PRIVATE = frozenset(
    {"env", "environ", "environment", "environment_variables", "envvars", "env_vars"}
)
"""Keys whose value is forgotten while a JSON file is read, at any depth."""


def problem(origin: str, line: int, message: str) -> CalibrationError:
    """Return the error for a line of the file `origin`."""
    return CalibrationError(f"{origin}:{line}: {message}")


def read_text(path: Path) -> str:
    """Return the text of a file, unpacked where it is gzip; CalibrationError where it cannot be."""
    return read_bytes(path).decode("utf-8", errors="replace")


def read_bytes(path: Path) -> bytes:
    """Return what is in a file, unpacked where it is gzip; CalibrationError where it cannot be."""
    try:
        with path.open("rb") as file:
            packed = _up_to(file, MAX_FILE_BYTES, f"{path} is larger than")
        if packed[:2] == _GZIP:
            with gzip.open(io.BytesIO(packed)) as unpacked:
                packed = _up_to(unpacked, MAX_TEXT_BYTES, f"{path} unpacks to more than")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CalibrationError(f"{path} is a damaged or cut gzip file") from None
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror}") from None
    return packed


def _up_to(file: BinaryIO | gzip.GzipFile, limit: int, complaint: str) -> bytes:
    """Return all of `file`; a size that it states is not believed."""
    whole = bytearray()
    while chunk := file.read(_CHUNK_BYTES):
        whole += chunk
        if len(whole) > limit:
            raise CalibrationError(f"{complaint} {limit // 2**20:,} MiB, the most that is read")
    return bytes(whole)


def lines_of(text: str) -> list[str]:
    """Return the lines as an editor counts them; str.splitlines knows more line ends."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def load_json(text: str, origin: str, *, forget: bool = False) -> Any:
    """Return the data of a JSON file; with `forget`, environments are dropped on the way in."""
    hook = _without_environment if forget else None
    try:
        return json.loads(text, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        raise problem(origin, error.lineno, "not valid JSON from here on") from None
    except (RecursionError, ValueError):
        raise CalibrationError(f"{origin}: JSON that is nested too deep or too long") from None


def _without_environment(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key.lower() not in _PRIVATE}
