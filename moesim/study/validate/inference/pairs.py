"""MoE over dense on the same machines: ratios of rows of two cases, as a case file lists them.

A pair names two cases, what its numbers are (`metric`: names in brackets, or one ratio `per` the
names in brackets), and the measured ratios. Throughput of a closed loop is derived from TTFT and
TPOT as the file defines it: concurrency * osl / (ttft + tpot (osl - 1)) per device.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from moesim.spec.cases import Case, CaseFile, Words
from moesim.study.validate.figures import number
from moesim.study.validate.inference.words import Row, rows
from moesim.study.validate.record import Record, ran

Figures = Mapping[tuple[str, int], Mapping[str, float]]
"""What was predicted, by case and row, under the names of the columns."""

KIND = "moe_over_dense"
FALL = "ratio_at_most_over_least_load"

_KEYS = {"isl": ("isl",), "osl": ("osl",), "concurrency": ("concurrency", "max_concurrency"),
         "rate": ("rate_rps", "request_rate_per_s")}  # fmt: skip
_TIMES = {
    "tpot": ("tpot_ms", "tpot_mean_ms"), "itl": ("itl_mean_ms", "itl_ms"),
    "ttft": ("ttft_ms", "ttft_mean_ms"),
}  # fmt: skip
_RATES = ("output_tokens_s", "total_output_tokens_per_s", "output_tokens_per_s_per_gpu",
          "output_tokens_s_per_gpu", "speed_tokens_s")  # fmt: skip


def compared_ratios(
    file: CaseFile, cases: Iterable[Case], records: Iterable[Record]
) -> list[Record]:
    """Return a record of every ratio of the pairs whose two cases were asked for."""
    asked = {case.id: case for case in cases}
    figures: dict[tuple[str, int], dict[str, float]] = {}
    base: dict[str, Record] = {}
    for one in records:
        base.setdefault(one.case, one)
        if one.predicted and one.row is not None:
            plain = one.metric.partition(" above")[0]
            figures.setdefault((one.case, one.row), {})[plain] = one.predicted
    found: list[Record] = []
    for pair in file.ratios:
        names = str(pair.get("moe")), str(pair.get("dense"))
        if names[0] in asked and names[1] in asked:
            first = base[names[0]]
            record = replace(
                first, case=f"{names[1]} -> {names[0]}", kind=KIND, cls="moe", metric="", row=None,
                predicted=None, measured=None, status="skipped", reason="", assumed=(),
                quality=max(asked[name].text("quality") for name in names),
            )  # fmt: skip
            found += _of_pair(pair, (asked[names[0]], asked[names[1]]), figures, record)
    return found


def _of_pair(
    pair: Words, both: tuple[Case, Case], figures: Figures, record: Record
) -> list[Record]:
    measured = pair.get("measured_ratio_moe_over_dense")
    if isinstance(measured, Mapping):
        found = _by_name(measured, both, figures, record)
    elif isinstance(measured, list):
        found = _by_row(str(pair.get("metric")), measured, both, figures, record)
    else:
        found = _single(str(pair.get("metric")), number(measured), both, figures, record)
    return found or [replace(record, reason="no ratio of the pair can be told")]


def _single(
    metric: str, ratio: float | None, both: tuple[Case, Case], figures: Figures, record: Record
) -> list[Record]:
    """Compare the first rows of both cases."""
    name = _name(metric)
    sides = [_named(figures.get((case.id, 0), {}), name) for case in both]
    if not ratio or sides[0] is None or sides[1] is None:
        return []
    return [ran(record, f"{name}_ratio", sides[0] / sides[1], ratio)]


def _named(have: Mapping[str, float], name: str) -> float | None:
    return next((have[one] for one in _TIMES.get(name, _RATES) if one in have), None)


def _by_name(
    measured: Words, both: tuple[Case, Case], figures: Figures, record: Record
) -> list[Record]:
    found = []
    for name, value in measured.items():
        one, other = (figures.get((case.id, 0), {}).get(str(name)) for case in both)
        ratio = number(value)
        if one and other and ratio:
            found.append(ran(record, f"{name}_ratio", one / other, ratio))
    return found


def _by_row(
    metric: str, measured: list[object], both: tuple[Case, Case], figures: Figures, record: Record
) -> list[Record]:
    columns = _columns(metric)
    fixed = {name: float(value) for name, value in re.findall(r"\b(isl|osl) (\d+)", metric)}
    found: list[Record] = []
    load: dict[str, list[tuple[float, float, float]]] = {}
    for line in measured:
        if not isinstance(line, list) or len(line) != len(columns):
            continue
        wanted = {**fixed, **{k: v for k, v in zip(columns, line, strict=True) if k in _KEYS}}
        for name, value in zip(columns, line, strict=True):
            ratio = number(value)
            if name in _KEYS or not ratio:
                continue
            sides = [_figure(case, wanted, name, figures) for case in both]
            if sides[0] is None or sides[1] is None:
                found.append(replace(record, metric=f"{name}_ratio", reason="a row was skipped"))
                continue
            found.append(ran(record, f"{name}_ratio", sides[0] / sides[1], ratio))
            if (at := number(wanted.get("concurrency"))) is not None:
                load.setdefault(name, []).append((at, sides[0] / sides[1], ratio))
    return found + _falls(load.get("throughput", []), record)


def _falls(curve: list[tuple[float, float, float]], record: Record) -> list[Record]:
    """Return how the ratio of throughputs changes from the least to the most load."""
    if len(curve) < 2:
        return []
    least, most = min(curve), max(curve)
    return [ran(record, FALL, most[1] / least[1], most[2] / least[2])]


def _columns(metric: str) -> list[str]:
    """Return what the numbers of a line are, by the words in brackets and before `per`."""
    inside = re.search(r"\[([^\]]*)\]", metric)
    names = [_name(word) for word in (inside[1].split(", ") if inside else [])]
    return [*names, "throughput"] if re.search(r"\bper \[", metric) else names


def _name(word: str) -> str:
    lower = word.casefold()
    for key in ("concurrency", "rate or all", "isl", "osl", "tpot", "itl", "ttft"):
        if lower.startswith(key):
            return key.split()[0]
    return "throughput" if "tokens/s" in lower else lower


def _figure(case: Case, wanted: Mapping[str, object], name: str, figures: Figures) -> float | None:
    for place, row in enumerate(rows(case)):
        if not _matches(row, wanted):
            continue
        have = figures.get((case.id, place))
        if have is None:
            continue
        if (found := _named(have, name)) is not None:
            return found
        if name == "throughput":
            return _derived(case, row, have)
    return None


def _matches(row: Row, wanted: Mapping[str, object]) -> bool:
    for name, value in wanted.items():
        have = next((row[one] for one in _KEYS[name] if one in row), None)
        if have != value and number(have) != number(value):
            return False
    return True


def _derived(case: Case, row: Row, have: Mapping[str, float]) -> float | None:
    """Return the output tokens per second and device of a closed loop, by the file's formula."""
    output, load = number(row.get("osl")), number(row.get("concurrency"))
    ttft, tpot = have.get("ttft_ms"), have.get("tpot_ms")
    devices = number(case.part("hardware").get("gpus"))
    if not (output and load and ttft and tpot and devices):
        return None
    mean = 0.9 * output if case.part("workload").get("profile") == "inferencex" else output
    return load * mean / (1e-3 * (ttft + tpot * (mean - 1))) / devices
