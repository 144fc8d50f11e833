"""The raw measurements beside the profile, as Parquet: kept on Ctrl-C, and taken up again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moesim.calibrate.bench import Timing
from moesim.calibrate.suite import Case
from moesim.errors import CalibrationError


@dataclass(frozen=True, slots=True)
class Sample:
    """A case and what it took."""

    case: Case
    timing: Timing
    conditions: str = ""
    """Clock, temperature and load when it was measured, as far as they can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What an earlier run left."""

    samples: tuple[Sample, ...] = ()
    spent_s: float = 0.0
    """Of the budget, by all runs together."""


_COLUMNS = ("operator", "variant", "dtype", "shape", "seconds", "host_s", "spread", "repeats",
            "disturbed", "conditions")  # fmt: skip


def save(path: Path, fingerprint: str, kept: Kept) -> None:
    """Write samples to `path`, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_row(sample) for sample in kept.samples]
    table = pa.table({name: [row[name] for row in rows] for name in _COLUMNS})
    about = {"fingerprint": fingerprint, "spent_s": repr(kept.spent_s)}
    table = table.replace_schema_metadata(about)
    make_room(path)
    beside = _beside(path)
    pq.write_table(table, beside)
    beside.replace(path)


def make_room(path: Path) -> None:
    """Make the folder of `path`, and find out that files can be written there before it matters.

    Raises OSError where they cannot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _beside(path).write_bytes(b"")
    _beside(path).unlink()


def _beside(path: Path) -> Path:
    return path.with_suffix(".partial")


def load(path: Path, fingerprint: str) -> Kept:
    """Return what is in `path`, or nothing where it is not there or from another device.

    Raises CalibrationError for a file that is no Parquet of ours.
    """
    if not path.exists():
        return Kept()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        rows = table.select(_COLUMNS).to_pylist()
        if about["fingerprint"] != fingerprint:
            return Kept()
        return Kept(samples=tuple(map(_sample, rows)), spent_s=float(about["spent_s"]))
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise CalibrationError(
            f"{path} does not hold samples of moesim calibrate ({error}); move it away or measure "
            "again with --fresh"
        ) from None


def _row(sample: Sample) -> dict[str, object]:
    case, timing = sample.case, sample.timing
    return {
        "operator": case.operator,
        "variant": case.variant,
        "dtype": case.dtype,
        "shape": json.dumps(dict(case.shape)),
        "seconds": timing.seconds,
        "host_s": timing.host_s,
        "spread": timing.spread,
        "repeats": timing.repeats,
        "disturbed": timing.disturbed,
        "conditions": sample.conditions,
    }


def _sample(row: dict[str, object]) -> Sample:
    shape = json.loads(str(row["shape"]))
    case = Case(
        str(row["operator"]), str(row["variant"]), str(row["dtype"]),
        tuple((name, float(value)) for name, value in shape.items()),
    )  # fmt: skip
    numbers = {name: float(str(row[name])) for name in ("seconds", "host_s", "spread", "disturbed")}
    timing = Timing(repeats=int(str(row["repeats"])), **numbers)
    return Sample(case, timing, str(row["conditions"]))


def by_curve(samples: Sequence[Sample]) -> dict[tuple[str, str, str], list[Sample]]:
    """Return the samples of each curve: operator, dtype, variant."""
    found: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.case.curve, []).append(sample)
    return found
