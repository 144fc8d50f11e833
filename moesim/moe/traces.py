"""Measured routing: counts per expert, or every token's experts, read from csv, npz and npy."""

import csv
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from moesim.errors import CalibrationError
from moesim.moe.loads import Counts

MAX_FILE_BYTES = 2**29
"""A trace file, and an array in it unpacked, may be this large."""
MAX_EXPERTS = 2**15


@dataclass(frozen=True, slots=True)
class Trace:
    """Every token's experts in every layer, tokens in order, sequence after sequence."""

    ids: NDArray[np.int16]
    """[layers, tokens, k]."""
    sequences: NDArray[np.int64]
    """Tokens of each sequence; they sum to `tokens`."""
    experts: int
    domain: str = ""


@dataclass(frozen=True, slots=True)
class CountTable:
    """How many assignments each expert got, per layer."""

    counts: Counts
    """[layers, experts]."""
    layers: tuple[int, ...]
    """The number of each layer."""
    top_k: int
    model: str
    checkpoint: str
    domain: str
    selection: str
    """Which choices count: top6 all of six, top1-of-8 the first of eight."""


def counts_of(trace: Trace) -> Counts:
    """Return counts[layer, expert] of a whole trace."""
    return counts_in(trace.ids, trace.experts)


def counts_in(ids: NDArray[np.int16], experts: int) -> Counts:
    """Return counts[layer, expert] of ids[layer, token, choice]."""
    layers = len(ids)
    flat = ids.reshape(layers, -1) + experts * np.arange(layers, dtype=np.int64)[:, None]
    found = np.bincount(flat.ravel(), minlength=layers * experts)
    return found.reshape(layers, experts).astype(np.int64)


def make_trace(
    ids: NDArray[np.generic], sequences: NDArray[np.generic], experts: int, domain: str = ""
) -> Trace:
    """Return a checked trace; CalibrationError says what is wrong with the ids or lengths."""
    if ids.ndim != 3 or ids.dtype.kind not in "iu" or 0 in ids.shape:
        raise CalibrationError(
            f"{domain}: expert ids are whole numbers [layers, tokens, k], not {ids.dtype} "
            f"{list(ids.shape)}"
        )
    if not 1 <= experts <= MAX_EXPERTS or ids.shape[2] > experts:
        raise CalibrationError(f"{domain}: {ids.shape[2]} choices of {experts} experts")
    if int(ids.min()) < 0 or int(ids.max()) >= experts:
        raise CalibrationError(
            f"{domain}: expert ids reach from {ids.min()} to {ids.max()}; 0 to {experts - 1} are "
            "allowed"
        )
    ordered = np.sort(ids, axis=2)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        raise CalibrationError(f"{domain}: a token chooses the same expert twice in one layer")
    lengths = sequences.astype(np.int64) if sequences.dtype.kind in "iu" else np.zeros(1, np.int64)
    if lengths.ndim != 1 or (lengths < 1).any():
        raise CalibrationError(f"{domain}: sequence lengths are whole numbers of at least 1")
    if int(lengths.sum()) != ids.shape[1]:
        raise CalibrationError(
            f"{domain}: sequences of {lengths.sum()} tokens in all, but {ids.shape[1]} tokens"
        )
    return Trace(ids.astype(np.int16), lengths, experts, domain)


def read_npz(path: Path, experts: int) -> dict[str, Trace]:
    """Return the traces of a npz file by domain: `<domain>_ids` and `<domain>_seq_len` each.

    ids are whole numbers [layers, tokens, k], lengths sum to the tokens. Nothing is unpickled.
    """
    arrays = dict(_npz_arrays(path))
    domains = [name.removesuffix("_ids") for name in arrays if name.endswith("_ids")]
    if not domains:
        raise CalibrationError(f"{path}: no array called <domain>_ids: found {sorted(arrays)}")
    traces = {}
    for domain in domains:
        lengths = arrays.get(f"{domain}_seq_len")
        if lengths is None:
            raise CalibrationError(f"{path}: {domain}_ids has no {domain}_seq_len")
        try:
            traces[domain] = make_trace(arrays[f"{domain}_ids"], lengths, experts, domain)
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from None
    return traces


_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # encrypted; NotImplementedError, an unknown compression, is one of these too
)
"""What zipfile raises on a file that is no archive, or a damaged one."""


def _npz_arrays(path: Path) -> Iterator[tuple[str, NDArray[np.generic]]]:
    check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > MAX_FILE_BYTES:
                    raise CalibrationError(f"{path}: {member.filename} unpacks to too much")
                with archive.open(member) as file:
                    name = member.filename.removesuffix(".npy")
                    yield name, read_npy(file, member.file_size, f"{path}: {name}")
    except _BROKEN_ARCHIVE as error:
        raise CalibrationError(f"{path}: not a npz file ({error})") from None


_BROKEN_ARRAY = (
    ValueError,
    EOFError,
    OverflowError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
)
"""What numpy raises on a file that is no array, or a damaged one."""


def read_npy(file: IO[bytes], size: int, where: str) -> NDArray[np.generic]:
    """Return the array of a npy file of `size` bytes, whole numbers only, nothing unpickled."""
    data = file.read(size + 1)
    try:
        header = BytesIO(data)
        version = np.lib.format.read_magic(header)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(header)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(header)
        else:
            raise ValueError(f"npy version {version}")
        if dtype.kind not in "iu":
            raise ValueError(f"{dtype} instead of whole numbers")
        entries = 1
        for length in shape:
            entries *= int(length)
        if entries * dtype.itemsize != size - header.tell():
            raise ValueError(f"{size - header.tell()} bytes for {list(shape)} of {dtype}")
        return np.asarray(np.load(BytesIO(data), allow_pickle=False))
    except _BROKEN_ARRAY as error:
        raise CalibrationError(f"{where}: not an array that can be read ({error})") from None


def check_size(path: Path) -> None:
    """Raise CalibrationError where the file is missing or too large."""
    if not path.is_file():
        raise CalibrationError(f"{path}: no such file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise CalibrationError(f"{path}: larger than {MAX_FILE_BYTES} bytes")


COLUMNS = ("model", "checkpoint", "domain", "layer", "selection", "expert", "count")
"""Columns of a table of expert counts."""


def read_counts(path: Path) -> tuple[CountTable, ...]:
    """Return the tables of expert counts of a csv file, by model, checkpoint, domain, selection.

    Columns: model, checkpoint, domain, layer, selection, expert, count. Every layer of a table
    has each expert once; `selection` starts with topK.
    """
    check_size(path)
    found: dict[tuple[str, ...], dict[tuple[int, int], int]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise CalibrationError(f"{path}:1: the columns are {', '.join(COLUMNS)}")
            for row in reader:
                _add(found, row, f"{path}:{reader.line_num}")
        except (csv.Error, UnicodeDecodeError) as error:
            raise CalibrationError(f"{path}:{reader.line_num}: {error}") from None
    return tuple(_table(key, rows, path) for key, rows in found.items())


def _add(
    found: dict[tuple[str, ...], dict[tuple[int, int], int]],
    row: Mapping[str, str | None],
    where: str,
) -> None:
    values = [row[name] for name in COLUMNS]
    if None in values or len(row) != len(COLUMNS):
        raise CalibrationError(f"{where}: {len(COLUMNS)} values a row")
    key = tuple(str(row[name]) for name in ("model", "checkpoint", "domain", "selection"))
    try:
        layer, expert, count = (int(str(row[name])) for name in ("layer", "expert", "count"))
    except ValueError:
        raise CalibrationError(f"{where}: layer, expert and count are whole numbers") from None
    if layer < 0 or not 0 <= expert < MAX_EXPERTS or not 0 <= count < 2**53:
        raise CalibrationError(f"{where}: layer, expert or count out of range")
    rows = found.setdefault(key, {})
    if (layer, expert) in rows:
        raise CalibrationError(f"{where}: layer {layer} has expert {expert} twice")
    rows[layer, expert] = count


def _table(key: tuple[str, ...], rows: dict[tuple[int, int], int], path: Path) -> CountTable:
    model, checkpoint, domain, selection = key
    layers = tuple(sorted({layer for layer, _ in rows}))
    experts = 1 + max(expert for _, expert in rows)
    name = " ".join(key)
    if len(rows) != len(layers) * experts:
        raise CalibrationError(f"{path}: {name}: {experts} experts are not in each layer once")
    digits = selection.removeprefix("top").split("-")[0]
    if not selection.startswith("top") or not (digits.isascii() and digits.isdigit()):
        raise CalibrationError(f"{path}: {name}: the selection starts with topK, such as top6")
    if not 1 <= int(digits) <= experts:
        raise CalibrationError(f"{path}: {name}: {digits} choices of {experts} experts")
    counts = np.array([[rows[layer, e] for e in range(experts)] for layer in layers])
    if (counts.sum(axis=1) == 0).any():
        raise CalibrationError(f"{path}: {name}: a layer without any count")
    return CountTable(counts, layers, int(digits), model, checkpoint, domain, selection)
