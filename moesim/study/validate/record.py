"""One figure that was predicted and measured, or the reason why it was not."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from moesim.spec.cases import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A compared figure; `predicted`, `measured` and `error` are None where it was skipped."""

    case: str
    source: str
    chip: str
    model: str
    cls: str
    """dense or moe."""
    kind: str
    quality: str
    metric: str = ""
    row: int | None = None
    predicted: float | None = None
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    status: str = "skipped"
    """ran or skipped."""
    reason: str = ""
    assumed: tuple[str, ...] = ()
    """What had to be assumed of the case."""
    software: str = ""
    """Engine and version of a case of inference."""

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured, signed."""
        if self.predicted is None or not self.measured:
            return None
        return (self.predicted - self.measured) / self.measured


def blank(case: Case) -> Record:
    """Return the record of `case` before anything is known."""
    return Record(
        case=case.id,
        source=_named(case, "source", "key"),
        chip=_named(case, "hardware", "chip"),
        model=case.text("model"),
        cls=case.text("cls"),
        kind=case.kind,
        quality=case.text("quality"),
    )


def _named(case: Case, part: str, key: str) -> str:
    """Return a text of a case; of a mapping what stands under `key`, as in inference files."""
    value = case.part(part).get(key)
    return str(value) if value is not None else case.text(part)


def ran(
    record: Record, metric: str, predicted: float, measured: float, *, row: int | None = None
) -> Record:
    """Return `record` with a figure of its case."""
    return replace(
        record, metric=metric, row=row, predicted=predicted, measured=measured, status="ran"
    )


def as_json(record: Record) -> dict[str, Any]:
    """Return a record under the keys of its JSON form."""
    data = asdict(record)
    data["class"] = data.pop("cls")
    data["error"] = record.error
    keys = (
        "case", "source", "chip", "model", "class", "kind", "quality", "metric", "row",
        "predicted", "measured", "error", "low", "high", "status", "reason", "assumed",
        "software",
    )  # fmt: skip
    return {key: list(data[key]) if key == "assumed" else data[key] for key in keys}
