"""The README's list of columns is enough for every kind of table: no reader asks for another."""

import re
from pathlib import Path

import numpy as np
import pytest

from moesim.calibrate.measurements import read_groups
from moesim.calibrate.table_fit import chips_of
from moesim.calibrate.tables import TABLES
from moesim.cost.families.table import FAMILIES

README = Path(__file__).resolve().parents[3] / "README.md"

VALUES = {
    "hardware": "h100_sxm", "library": "mine", "library_version": "1.0", "dtype": "bf16",
    "time_us": "50", "payload_dtype": "bf16", "kv_cache_dtype": "bf16", "projection_dtype": "none",
    "scope": "kernel", "kernel": "mine", "routing": "balanced", "gated": "True",
    "weights_l2_resident": "False", "kv_l2_resident": "False", "collective": "all_reduce",
    "algorithm": "auto", "interconnect": "nvlink", "network": "none", "time_origin": "measured",
    "mode": "high_throughput", "phase": "dispatch", "num_nodes": "1", "ep_size": "8",
    "past_kv_tokens": "0", "sliding_window": "0", "max_nodes_per_token": "1", "bytes": "1048576",
    "tp_size": "1",
}  # fmt: skip
"""A word or number that each column allows; 8 for the rest."""

OPERATORS = {
    "absorbed products": "mla_gen_pre", "memory-bound": "rmsnorm", "grouped product": "down",
}  # fmt: skip


def documented() -> dict[str, list[str]]:
    text = README.read_text(encoding="utf-8").partition("| operator | columns |")[2]
    rows = text.partition("\n\n")[0].splitlines()[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    return {kind: re.findall(r"`(\w+)`", columns) for kind, columns in cells}


@pytest.mark.parametrize("kind", documented())
def test_the_documented_columns_are_enough(kind: str, tmp_path: Path) -> None:
    columns = ["hardware", "library", "library_version", "time_us", *documented()[kind]]
    if "payload_dtype" not in columns:
        columns.append("dtype")
    values = {**VALUES, "operator": OPERATORS.get(kind, "")}
    file = tmp_path / "mine.csv"
    rows = [",".join(columns), ",".join(values.get(name, "8") for name in columns)]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    (group,), skipped = read_groups(file)
    assert skipped == []
    assert (group.library, group.version) == ("mine", "1.0")
    family, on = FAMILIES[group.family], chips_of(["h100_sxm"])["h100_sxm"]
    start = family.start(on, group.dtype)
    found = family.physics(group.samples, on, group.dtype, start)
    assert np.isfinite(found).all()


def test_every_kind_of_table_is_documented() -> None:
    known = [set(columns) for columns in documented().values()]
    for table in TABLES:
        assert any(set(table.needs) <= columns for columns in known), table.operator
