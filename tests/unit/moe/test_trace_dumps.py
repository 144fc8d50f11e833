"""Routed experts as vLLM and SGLang return them."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import CalibrationError
from moesim.moe.trace_dumps import DumpShape, read_array, read_jsonl
from moesim.moe.traces import Trace

# [tokens, layers, k]; layer 0 is dense, so the engines leave it at 0
_ONE = np.array([[[0, 0], [1, 2], [3, 0]], [[0, 0], [2, 1], [1, 3]]])
_TWO = np.array([[[0, 0], [0, 3], [2, 1]]])
_SHAPE = DumpShape(experts=4, layers=3, top_k=2)


def _npy(ids: np.ndarray, dtype: str) -> str:
    """As vllm/utils/serial_utils.py numpy2base64 writes it."""
    with BytesIO() as buffer:
        np.save(buffer, ids.astype(dtype), allow_pickle=False)
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def _int32(ids: np.ndarray) -> str:
    """As sglang/srt/managers/detokenizer_manager.py encodes it."""
    return base64.b64encode(ids.astype("<i4").tobytes()).decode("utf-8")


def _read(tmp_path: Path, rows: list[Any], shape: DumpShape = _SHAPE) -> Trace:
    path = tmp_path / "dump.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return read_jsonl(path, shape, "chat")


@pytest.mark.parametrize(
    "rows",
    [
        [
            {"choices": [{"routed_experts": _npy(_ONE, "uint8")}]},
            {"choices": [{"index": 0, "text": "x", "routed_experts": _npy(_TWO, "uint16")}]},
        ],
        [{"choices": [{"routed_experts": _npy(ids, "int32")} for ids in (_ONE, _TWO)]}],
        [{"text": "", "meta_info": {"routed_experts": _int32(ids)}} for ids in (_ONE, _TWO)],
        [{"choices": [{}], "sglext": {"routed_experts": _int32(ids)}} for ids in (_ONE, _TWO)],
        [{"routed_experts": _ONE.tolist()}, "", {"routed_experts": _TWO.tolist()}],
    ],
)
def test_each_engines_rows_are_read(tmp_path: Path, rows: list[Any]) -> None:
    trace = _read(tmp_path, rows)
    assert trace.ids.tolist() == [[[1, 2], [2, 1], [0, 3]], [[3, 0], [1, 3], [2, 1]]]
    assert trace.sequences.tolist() == [2, 1]
    assert (trace.experts, trace.domain) == (4, "chat")


def test_vllm_rows_need_no_shape(tmp_path: Path) -> None:
    rows = [{"choices": [{"routed_experts": _npy(_ONE, "uint8")}]}]
    assert _read(tmp_path, rows, DumpShape(experts=4)).ids.shape == (2, 2, 2)


def test_a_plain_array_is_one_sequence(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", _ONE)
    trace = read_array(tmp_path / "x.npy", _SHAPE)
    assert trace.ids.tolist() == [[[1, 2], [2, 1]], [[3, 0], [1, 3]]]
    assert trace.sequences.tolist() == [2]
    np.save(tmp_path / "flat.npy", np.arange(4))
    with pytest.raises(CalibrationError, match=r"\[tokens, layers, k\], not \[4\]"):
        read_array(tmp_path / "flat.npy", _SHAPE)
    np.save(tmp_path / "object.npy", np.array([object()]))
    with pytest.raises(CalibrationError, match="object instead of whole numbers"):
        read_array(tmp_path / "object.npy", _SHAPE)


_GOOD = {"routed_experts": _ONE.tolist()}
_OBJECT = BytesIO()
np.save(_OBJECT, np.array([{"a": 1}]), allow_pickle=True)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([_GOOD, "{"], ":2: not a JSON object"),
        ([_GOOD, "[1]"], ":2: not a JSON object"),
        ([_GOOD, "[" * 100_000], ":2: not a JSON object"),
        ([_GOOD, {"choices": [{"text": "x"}]}], ":2: no routed_experts: was the engine told"),
        ([_GOOD, {"routed_experts": 3}], ":2: routed_experts is base64 text or nested lists"),
        ([_GOOD, {"routed_experts": "@@"}], ":2: routed_experts is not base64"),
        ([_GOOD, {"routed_experts": "AAAA"}], ":2: not an array that can be read"),
        (
            [{"routed_experts": base64.b64encode(_OBJECT.getvalue()).decode()}],
            ":1: not an array that can be read .object instead",
        ),
        ([_GOOD, {"meta_info": {"routed_experts": "AAAA"}}], ":2: 3 bytes are not int32"),
        ([_GOOD, {"routed_experts": [[[0, 1], [1]]]}], ":2: lists .* of one length"),
        ([_GOOD, {"routed_experts": [[[0.5]]]}], ":2: ids are whole numbers"),
        ([_GOOD, {"routed_experts": []}], ":2: ids are whole numbers"),
        ([{"routed_experts": (_ONE + 1).tolist()}], ":1: expert ids beyond 0 to 3"),
        ([{"routed_experts": (_ONE - 1).tolist()}], ":1: expert ids beyond 0 to 3"),
        ([{"routed_experts": _ONE[:, 1:].tolist()}], ":1: 2 layers or choices where 3 are meant"),
        ([{"routed_experts": (_ONE * 0).tolist()}], "all expert ids are 0"),
        ([{"routed_experts": np.ones((1, 3, 2), int).tolist()}], "the same expert twice"),
        ([""], "no row with routed_experts"),
    ],
)
def test_rows_that_cannot_be_read_are_refused_with_their_line(
    tmp_path: Path, rows: list[Any], says: str
) -> None:
    with pytest.raises(CalibrationError, match=says):
        _read(tmp_path, rows)


def test_rows_of_different_models_are_refused(tmp_path: Path) -> None:
    rows = [_GOOD, {"routed_experts": _ONE[:, 1:].tolist()}]
    with pytest.raises(CalibrationError, match=r":2: \[2, 2\] layers and choices, \[3, 2\] in"):
        _read(tmp_path, rows, DumpShape(experts=4))


def test_sglang_rows_without_a_shape_are_refused(tmp_path: Path) -> None:
    rows = [{"meta_info": {"routed_experts": _int32(_ONE)}}]
    with pytest.raises(CalibrationError, match=":1: SGLang's rows need the number of layers"):
        _read(tmp_path, rows, DumpShape(experts=4))
