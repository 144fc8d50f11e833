"""The result directory of a serving run: for people, for spreadsheets, and for other tools."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from moesim.study.report.files import MARKER, to_csv, to_json, write
from moesim.study.report.serving import page
from moesim.study.report.serving.bench_json import bench
from moesim.study.report.serving.openmetrics import openmetrics
from moesim.study.report.serving.summary import summary
from moesim.study.report.serving.tables import requests, tables
from moesim.study.report.serving.trace import trace
from moesim.study.serving.findings import ServingFindings
from moesim.study.serving.simulate import ServingOutcome


def save(result: ServingFindings, directory: Path) -> Path:
    """Write the result to `directory`; return it.

    Raises ScenarioError where the directory holds something else or cannot be written.
    """
    return write(lambda: contents(result), directory)


def contents(result: ServingFindings) -> dict[str, str | bytes]:
    """Return every file of a result, by file name."""
    outcome = result.model.outcome
    found: dict[str, str | bytes] = {MARKER: to_json(summary(result)) + "\n"}
    for name, rows in tables(result).items():
        found[f"{name}.csv"] = to_csv(rows)
    found["requests.parquet"] = _parquet(outcome)
    found["vllm-bench.json"] = json.dumps(bench(result), allow_nan=False) + "\n"
    found["metrics.txt"] = openmetrics(outcome)
    found["trace.json"] = json.dumps(trace(outcome), separators=(",", ":")) + "\n"
    found["report.html"] = page.html(result)
    return found


def _parquet(outcome: ServingOutcome) -> bytes:
    """Return one row per request."""
    import pyarrow
    from pyarrow import parquet

    columns = {name: _column(values) for name, values in requests(outcome).items()}
    out = io.BytesIO()
    table = pyarrow.Table.from_arrays(list(columns.values()), names=list(columns))
    parquet.write_table(table, out)
    return out.getvalue()


def _column(values: Any) -> Any:
    """Return numbers as pyarrow keeps them; its own conversion imports pandas, a quarter second."""
    import pyarrow

    bits = values.dtype == np.bool_
    data = np.packbits(values, bitorder="little") if bits else np.ascontiguousarray(values)
    kind = {"b": pyarrow.bool_, "i": pyarrow.int64, "f": pyarrow.float64}[values.dtype.kind]()
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(data)])
