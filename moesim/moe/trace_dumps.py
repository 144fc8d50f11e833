"""Expert choices that serving engines return with each request, read into traces.

vLLM 0.33 (`--enable-return-routed-experts`): each of `choices` of a response has
`routed_experts`, base64 of a npy file [tokens - 1, layers, k] of uint8, uint16 or int32
(entrypoints/openai/completion/protocol.py). The last sampled token was never forwarded.

SGLang 0.5.23 (`--enable-return-routed-experts`, and `return_routed_experts` in the request):
`meta_info.routed_experts`, or `sglext.routed_experts` of an OpenAI response, base64 of bare int32
[tokens - 1, layers, k] (managers/detokenizer_manager.py, state_capturer/base.py): the reader must
be told layers and k.

Both engines count all hidden layers; dense ones stay 0 and are left out here. Rows may also hold
`routed_experts` as nested lists [tokens][layers][k], which is what `.tolist()` of vLLM's offline
`CompletionOutput.routed_experts` gives.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import CalibrationError
from moesim.moe.traces import Trace, check_size, make_trace, read_npy

Ids = NDArray[np.generic]

_KEY = "routed_experts"
_MAX_LINE_BYTES = 2**27


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpShape:
    """What a dump does not say of itself."""

    experts: int
    """Routed experts of a layer."""
    layers: int | None = None
    """Hidden layers, dense ones included; SGLang's dumps need it."""
    top_k: int | None = None
    """Choices of a token; SGLang's dumps need it."""


def read_jsonl(path: Path, shape: DumpShape, domain: str = "") -> Trace:
    """Return the requests of a JSON-lines dump as one trace, a sequence for each completion.

    Every row is one response of vLLM or SGLang (see the module), or an object with
    `routed_experts`. CalibrationError names the line that cannot be read.
    """
    check_size(path)
    rows: list[Ids] = []
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > _MAX_LINE_BYTES:
                raise CalibrationError(f"{path}:{number}: a line of over {_MAX_LINE_BYTES} bytes")
            if line.strip():
                rows.extend(_row(line, shape, f"{path}:{number}"))
                _same_size(rows, f"{path}:{number}")
    if not rows:
        raise CalibrationError(f"{path}: no row with {_KEY}: was the engine told to return them?")
    return _trace(rows, shape, domain, str(path))


def read_array(path: Path, shape: DumpShape, domain: str = "") -> Trace:
    """Return a npy file of ids [tokens, layers, k] as a trace of one sequence."""
    check_size(path)
    with path.open("rb") as file:
        ids = read_npy(file, path.stat().st_size, str(path))
    if ids.ndim != 3 or 0 in ids.shape:
        raise CalibrationError(f"{path}: ids are [tokens, layers, k], not {list(ids.shape)}")
    return _trace([ids], shape, domain, str(path))


def _trace(rows: list[Ids], shape: DumpShape, domain: str, where: str) -> Trace:
    ids = np.concatenate(rows).transpose(1, 0, 2)
    routed = (ids != 0).any(axis=(1, 2))
    if not routed.any():
        raise CalibrationError(f"{where}: all expert ids are 0")
    lengths = np.array([len(row) for row in rows])
    try:
        return make_trace(ids[routed], lengths, shape.experts, domain)
    except CalibrationError as error:
        raise CalibrationError(f"{where}: {error}") from None


def _same_size(rows: list[Ids], where: str) -> None:
    if rows and rows[-1].shape[1:] != rows[0].shape[1:]:
        raise CalibrationError(
            f"{where}: {list(rows[-1].shape[1:])} layers and choices, {list(rows[0].shape[1:])} "
            "in the rows before"
        )


def _row(line: bytes, shape: DumpShape, where: str) -> Iterator[Ids]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise CalibrationError(f"{where}: not a JSON object") from None
    if not isinstance(row, dict):
        raise CalibrationError(f"{where}: not a JSON object")
    found = list(_values(row))
    if not found:
        raise CalibrationError(f"{where}: no {_KEY}: was the engine told to return them?")
    for value, raw in found:
        yield _ids(value, raw, shape, where)


def _values(row: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Yield what stands under the key, and whether it is SGLang's bare int32 when it is text."""
    for holder in ("meta_info", "sglext"):
        inner = row.get(holder)
        if isinstance(inner, dict) and inner.get(_KEY) is not None:
            yield inner[_KEY], True
    choices = row.get("choices")
    for inner in (row, *(choices if isinstance(choices, list) else ())):
        if isinstance(inner, dict) and inner.get(_KEY) is not None:
            yield inner[_KEY], False


def _ids(value: Any, raw: bool, shape: DumpShape, where: str) -> Ids:
    if isinstance(value, list):
        try:
            ids = np.array(value)
        except (ValueError, OverflowError):
            raise CalibrationError(f"{where}: lists [tokens][layers][k] of one length") from None
    elif isinstance(value, str):
        ids = _decoded(value, raw, shape, where)
    else:
        raise CalibrationError(f"{where}: {_KEY} is base64 text or nested lists")
    if ids.ndim != 3 or ids.dtype.kind not in "iu" or 0 in ids.shape:
        raise CalibrationError(f"{where}: ids are whole numbers [tokens][layers][k]")
    if int(ids.min()) < 0 or int(ids.max()) >= shape.experts:
        raise CalibrationError(f"{where}: expert ids beyond 0 to {shape.experts - 1}")
    for given, found in ((shape.layers, ids.shape[1]), (shape.top_k, ids.shape[2])):
        if given is not None and given != found:
            raise CalibrationError(f"{where}: {found} layers or choices where {given} are meant")
    return ids


def _decoded(text: str, raw: bool, shape: DumpShape, where: str) -> Ids:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CalibrationError(f"{where}: {_KEY} is not base64") from None
    if not raw:
        return read_npy(BytesIO(data), len(data), where)
    if shape.layers is None or shape.top_k is None:
        raise CalibrationError(f"{where}: SGLang's rows need the number of layers and choices")
    width = shape.layers * shape.top_k
    if not data or len(data) % (4 * width):
        raise CalibrationError(
            f"{where}: {len(data)} bytes are not int32 [tokens, {shape.layers}, {shape.top_k}]"
        )
    return np.frombuffer(data, dtype="<i4").reshape(-1, shape.layers, shape.top_k)
