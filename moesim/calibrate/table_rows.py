"""Which columns and rows of a measurement table can be used; the others with their reason.

A column that may be missing gets what an empty cell means; a row whose time or sizes are no
positive numbers is left out, and the reason names the first such line. Cells are never repeated in
a reason: they may hold anything.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 2.0**53
"""A float no longer holds each whole number beyond this: such a size is damage."""

ANY = ("hardware", "time_us")
"""Columns of every kind of table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the columns of one kind of table may hold."""

    sizes: tuple[str, ...]
    """Numbers above 0, in every row."""
    empty: Mapping[str, str | float] = field(default_factory=dict)
    """Columns that may be missing, and what an empty cell means; a text that starts with = names
    the column that stands for it. Where that is a number, the column holds numbers above 0, or 0
    where an empty cell means 0."""
    words: tuple[str, ...] = ("dtype",)
    """Columns of text that must be there."""
    flags: tuple[str, ...] = ()
    """True or false; may be missing and empty, for false."""
    either: tuple[str, ...] = ()
    """One of these columns must be there: the sizes of phases."""


_ATTENTION = ("num_heads", "num_kv_heads", "head_dim", "batch_size")
_ATTENTION_EMPTY: Mapping[str, str | float] = {
    "sliding_window": 0.0,
    "kv_cache_dtype": "=dtype",
    "kernel": "",
}
_NETWORK: Mapping[str, str | float] = {
    "gpus_per_node": np.nan,
    "network": "",
    "interconnect": "unknown",
}

COLUMNS: Mapping[str, Columns] = {
    "gemm": Columns(sizes=("m", "n", "k"), flags=("weights_l2_resident",)),
    "attention_prefill": Columns(
        sizes=(*_ATTENTION, "seq_len"), empty={**_ATTENTION_EMPTY, "past_kv_tokens": 0.0}
    ),
    "attention_decode": Columns(
        sizes=(*_ATTENTION, "kv_tokens"), empty=_ATTENTION_EMPTY, flags=("kv_l2_resident",)
    ),
    "mla": Columns(
        sizes=("local_num_heads", "batch_size"), either=("seq_len", "kv_tokens"),
        empty={"kernel": "", "kv_cache_dtype": "=dtype"},
        words=("dtype", "scope", "projection_dtype"),
    ),
    "mla_bmm": Columns(sizes=("local_num_heads", "num_tokens"), words=("dtype", "operator")),
    "moe": Columns(
        sizes=("hidden_size", "expert_ffn_size", "top_k", "num_experts", "num_tokens"),
        empty={"num_expert_slots": "=num_experts", "tp_size": 1.0, "ep_size": 1.0, "kernel": ""},
        words=("dtype", "gated", "routing"), flags=("gated",),
    ),
    "grouped_gemm": Columns(
        sizes=("num_local_experts", "routed_rows", "n", "k"), empty={"kernel": ""},
        words=("dtype", "operator"),
    ),
    "elementwise": Columns(sizes=("rows", "cols"), words=("dtype", "operator")),
    "collectives": Columns(
        sizes=("num_gpus", "num_nodes", "bytes"), words=("dtype", "collective"),
        empty={**_NETWORK, "algorithm": "auto", "time_origin": "measured"},
    ),
    "moe_alltoall": Columns(
        sizes=("tokens_per_rank", "hidden_size", "top_k", "num_experts", "ep_size", "num_nodes"),
        empty={**_NETWORK, "algorithm": "", "payload_dtype": "bf16", "num_sms": np.nan,
               "max_nodes_per_token": np.nan, "bandwidth_kind": "",
               "reported_bandwidth_GB_per_s": np.nan},
        words=("mode", "phase"),
    ),
}  # fmt: skip
"""By the operator of the table; what stands empty is what the README says of these columns."""


def lacking(frame: "pd.DataFrame", columns: Columns) -> tuple[str, ...]:
    """Return the columns that must be there and are not."""
    needed = (*ANY, *columns.words, *columns.sizes)
    missing = [name for name in needed if name not in frame]
    if columns.either and not any(name in frame for name in columns.either):
        missing.append(" or ".join(columns.either))
    return tuple(missing)


def complete(
    frame: "pd.DataFrame", columns: Columns, place: Callable[[int], str]
) -> "tuple[pd.DataFrame, NDArray[np.object_]]":
    """Return the table with all columns and numbers as numbers, and why each row cannot be used.

    An empty text is the reason of a good row. An empty time is none: a bandwidth may stand for it.
    `place` gives the words for the place of a row in the file.
    """
    reasons = np.full(len(frame), "", dtype=object)
    for name, meant in columns.empty.items():
        frame = _filled(frame, name, meant)
    for name in _numbers(frame, columns):
        frame = _with_numbers(frame, name)
        bad = ~_usable(frame, name, columns.empty.get(name))
        _blame(reasons, bad, f"{name} is not a number above 0", place)
    for name in columns.words:  # a column with nothing in it at all holds floats
        if frame[name].dtype.kind == "f":
            frame = frame.assign(**{name: frame[name].astype(object).fillna("")})
    for name in columns.flags:
        frame = frame.assign(**{name: _flags(frame, name)})
    return frame.drop(columns=_GIVEN_EMPTY, errors="ignore"), reasons


def _numbers(frame: "pd.DataFrame", columns: Columns) -> Iterator[str]:
    """Yield the columns that hold numbers: sizes, the time, and those that may be empty."""
    yield from columns.sizes
    yield from (name for name in columns.either if name in frame)
    yield "time_us"
    for name, meant in columns.empty.items():
        if not isinstance(meant, str) or meant.removeprefix("=") in columns.sizes:
            yield name


def _usable(frame: "pd.DataFrame", name: str, meant: str | float | None) -> NDArray[np.bool_]:
    """Return which cells are numbers above 0, or 0 or empty where an empty cell means that."""
    value = frame[name].to_numpy(dtype=float)
    good = ((value >= 0) if meant == 0.0 else (value > 0)) & (value <= LARGEST)
    if name == "time_us":
        good |= _is_empty(frame, name)
    if isinstance(meant, float) and np.isnan(meant):
        good |= np.isnan(value)
    return np.asarray(good)


_GIVEN_EMPTY = "time_us was empty"


def _with_numbers(frame: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """Return the table with numbers in a column; NaN for what is none."""
    import pandas as pd

    column = frame[name]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return frame
    if name == "time_us":
        frame = frame.assign(**{_GIVEN_EMPTY: column.isna()})
    return frame.assign(**{name: pd.to_numeric(column, errors="coerce")})


def _is_empty(frame: "pd.DataFrame", name: str) -> NDArray[np.bool_]:
    column = frame[_GIVEN_EMPTY] if _GIVEN_EMPTY in frame else frame[name].isna()
    return column.to_numpy(dtype=bool)


def _filled(frame: "pd.DataFrame", name: str, meant: str | float) -> "pd.DataFrame":
    """Return the table with the column `name`, its empty cells as they are meant."""
    if isinstance(meant, str) and meant.startswith("="):
        other = frame[meant[1:]]
        return frame.assign(**{name: frame[name].fillna(other) if name in frame else other})
    if name not in frame:
        return frame.assign(**{name: meant})
    if isinstance(meant, str):
        return frame.assign(**{name: frame[name].astype(object).fillna(meant)})
    return frame if np.isnan(meant) else frame.assign(**{name: frame[name].fillna(meant)})


def _flags(frame: "pd.DataFrame", name: str) -> NDArray[np.bool_]:
    if name not in frame:
        return np.zeros(len(frame), dtype=bool)
    column = frame[name]
    if column.dtype == bool:
        return column.to_numpy(dtype=bool)
    words = column.astype(object).fillna("").astype(str).str.strip().str.lower()
    return words.isin(["true", "1", "1.0", "yes"]).to_numpy(dtype=bool)


def _blame(
    reasons: NDArray[np.object_], bad: NDArray[np.bool_], why: str, place: Callable[[int], str]
) -> None:
    """Give `why` to the rows that are bad and have no reason yet, with the place of the first."""
    new = bad & (reasons == "")
    if new.any():
        reasons[new] = f"{why}, first in {place(int(np.argmax(new)))}"
