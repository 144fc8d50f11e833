"""Files of measured routing: what is read, and what is refused with the place where it stands."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import CalibrationError
from moesim.moe.traces import CountTable, counts_in, counts_of, make_trace, read_counts, read_npz
from tests.shared_files import shared

_HEAD = "model,checkpoint,domain,layer,selection,expert,count\n"
_IDS = np.array([[[0, 1], [1, 2], [3, 0]], [[2, 3], [3, 2], [0, 2]]], dtype=np.uint8)
_LENGTHS = np.array([2, 1])


def test_a_table_of_counts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    rows = ["m,base,code,9,top2,1,5", "m,base,code,9,top2,0,3", "m,base,code,4,top2,0,1"]
    path.write_text(_HEAD + "\n".join([*rows, "m,base,code,4,top2,1,7", "m,base,c4,4,top1,0,2"]))
    code, c4 = read_counts(path)
    assert code.counts.tolist() == [[1, 7], [3, 5]]
    assert code.layers == (4, 9)
    assert (code.top_k, code.model, code.domain, code.selection) == (2, "m", "code", "top2")
    assert (c4.top_k, c4.counts.tolist()) == (1, [[2]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", ":1: the columns are model"),
        (f"{_HEAD}m,b,d,0,top1,0,1\nm,b,d,0,top1,x,1\n", ":3: layer, expert and count are whole"),
        (f"{_HEAD}m,b,d,0,top1,0\n", ":2: 7 values"),
        (f"{_HEAD}m,b,d,0,top1,0,1,9\n", ":2: 7 values"),
        (f"{_HEAD}m,b,d,0,top1,0,-1\n", ":2: layer, expert or count out of range"),
        (f"{_HEAD}m,b,d,0,top1,99999999,1\n", ":2: layer, expert or count out of range"),
        (f"{_HEAD}m,b,d,0,top1,0,1\nm,b,d,0,top1,0,2\n", ":3: layer 0 has expert 0 twice"),
        (f"{_HEAD}m,b,d,0,top1,1,1\n", "2 experts are not in each layer once"),
        (f"{_HEAD}m,b,d,0,all,0,1\n", "the selection starts with topK"),
        (f"{_HEAD}m,b,d,0,top2,0,1\n", "2 choices of 1 experts"),
        (f"{_HEAD}m,b,d,0,top1,0,0\n", "a layer without any count"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=says):
        read_counts(path)


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no such file"):
        read_counts(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(_HEAD.encode() + b"\xff\xfe\n")
    with pytest.raises(CalibrationError, match="decode"):
        read_counts(tmp_path / "bytes.csv")


def test_a_trace_is_read_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    np.savez(path, code_ids=_IDS, code_seq_len=_LENGTHS)
    trace = read_npz(path, 4)["code"]
    assert trace.ids.tolist() == _IDS.tolist()
    assert trace.sequences.tolist() == [2, 1]
    assert (trace.experts, trace.domain) == (4, "code")
    assert counts_of(trace).tolist() == [[2, 2, 1, 1], [1, 0, 3, 2]]
    assert counts_in(trace.ids[:, :1], 4).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("ids", "lengths", "says"),
    [
        (_IDS, np.array([2, 2]), "4 tokens in all, but 3"),
        (_IDS, np.array([3, 0]), "lengths are whole numbers of at least 1"),
        (_IDS, np.array([3.0]), "whole numbers"),
        (_IDS + 1, _LENGTHS, "from 1 to 4; 0 to 3 are allowed"),
        (_IDS * 0, _LENGTHS, "the same expert twice"),
        (_IDS[0], _LENGTHS, r"\[layers, tokens, k\]"),
        (_IDS / 1.0, _LENGTHS, "whole numbers"),
        (_IDS[:, :0], np.array([], dtype=int), r"\[layers, tokens, k\]"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused(
    tmp_path: Path, ids: np.ndarray, lengths: np.ndarray, says: str
) -> None:
    path = tmp_path / "trace.npz"
    np.savez(path, code_ids=ids, code_seq_len=lengths)
    with pytest.raises(CalibrationError, match=says):
        read_npz(path, 4)


def test_more_choices_than_experts_are_refused() -> None:
    with pytest.raises(CalibrationError, match="2 choices of 1 experts"):
        make_trace(_IDS, _LENGTHS, 1)


def test_files_that_are_no_traces_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(CalibrationError, match="not a npz file"):
        read_npz(path, 4)
    np.savez(path, a=_IDS)
    with pytest.raises(CalibrationError, match="no array called <domain>_ids"):
        read_npz(path, 4)
    np.savez(path, a_ids=_IDS)
    with pytest.raises(CalibrationError, match="a_ids has no a_seq_len"):
        read_npz(path, 4)
    np.savez(path, a_ids=np.array([object()]), a_seq_len=_LENGTHS)
    with pytest.raises(CalibrationError, match="object instead of whole numbers"):
        read_npz(path, 4)


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a_ids=_IDS, a_seq_len=_LENGTHS)
    with zipfile.ZipFile(path) as archive:
        data = archive.read("a_ids.npy").replace(b"(2, 3, 2)", b"(2,3,999)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a_ids.npy", data)
    with pytest.raises(CalibrationError, match="12 bytes for"):
        read_npz(path, 4)


def test_the_reference_data_are_read() -> None:
    tables = read_counts(shared("expert-loads/olmoe_mixtral_expert_counts.csv"))
    mixtral = [t for t in tables if t.model.startswith("mixtral") and t.selection == "top2"]
    assert sorted(t.domain for t in mixtral) == ["arxiv", "book", "c4", "github", "wikipedia"]
    assert {(t.counts.shape, t.layers, t.top_k) for t in mixtral} == {((3, 8), (0, 7, 15), 2)}
    traces = read_npz(shared("expert-loads/deepseek_v2_lite_esft_routing_trace.npz"), 64)
    sizes = {name: (t.ids.shape[1], len(t.sequences)) for name, t in traces.items()}
    assert sizes == {
        "intent": (8222, 127),
        "law": (8327, 33),
        "summary": (8479, 13),
        "translation": (8251, 40),
    }


def test_the_token_trace_and_the_table_of_counts_agree() -> None:
    tables: dict[str, CountTable] = {
        t.domain: t for t in read_counts(shared("expert-loads/deepseek_v2_lite_expert_counts.csv"))
    }
    traces = read_npz(shared("expert-loads/deepseek_v2_lite_esft_routing_trace.npz"), 64)
    for domain, trace in traces.items():
        assert (counts_of(trace) == tables[domain].counts).all()
        assert tables[domain].layers == tuple(range(1, 27))
