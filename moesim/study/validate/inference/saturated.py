"""Which rows of a case are above saturation, from what was measured alone.

A row is above it where queueing dominates the time to the first token: where all prompts come at
once; where its measured TTFT is more than three times the least TTFT of the rows with the same
lengths; or where less than 95 % of the offered output was put out. (Limits assumed.)
"""

from collections.abc import Sequence

from moesim.spec.cases import Case
from moesim.study.validate.figures import number
from moesim.study.validate.inference.words import Row

_MORE = 3.0
_KEPT_UP = 0.95
_TTFT = ("ttft_ms", "ttft_mean_ms")


def saturated(case: Case, table: Sequence[Row]) -> list[bool]:
    """Return for each row whether it is above saturation."""
    arrival = str(case.part("workload").get("arrival") or "")
    if "t=0" in arrival:
        return [True] * len(table)
    least: dict[str, float] = {}
    for row in table:
        if (measured := _ttft(row)) is not None:
            key = _lengths(row)
            least[key] = min(least.get(key, measured), measured)
    return [_is_above(case, row, least) for row in table]


def _is_above(case: Case, row: Row, least: dict[str, float]) -> bool:
    measured = _ttft(row)
    if measured is not None and measured > _MORE * least[_lengths(row)]:
        return True
    rate = number(row.get("request_rate_per_s"))
    put_out, length = number(row.get("output_tokens_s")), number(case.part("workload").get("osl"))
    return bool(rate and put_out and length and put_out < _KEPT_UP * rate * length)


def _ttft(row: Row) -> float | None:
    return next((found for name in _TTFT if (found := number(row.get(name)))), None)


def _lengths(row: Row) -> str:
    return "/".join(str(row.get(name)) for name in ("isl", "osl", "isl_param", "engine", "tp"))
