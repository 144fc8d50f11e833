"""From the rows of a trace to the requests of a run: window, speed, caps."""

from array import array
from pathlib import Path

from moesim.errors import Problem, ScenarioError
from moesim.sim.serving.requests import Requests, ps
from moesim.spec.serving.traces import TraceSpec
from moesim.study.serving.traces.read import read_rows
from moesim.study.serving.traces.rows import LATEST_PS, Rows


def traced(trace: TraceSpec, path: Path, *, timed: bool) -> Requests:
    """Return the requests of the file `path`, in its order; all at time 0 unless `timed`.

    Times count from the file's own start (Azure, AIPerf, vllm bench: from its first request), and
    from the start of the window if there is one. Raises ScenarioError where the file cannot be
    read, has no times where they are needed, or nothing in the window.
    """
    rows = read_rows(path)
    windowed = trace.start > 0 or trace.end is not None
    if (timed or windowed) and not rows.at:
        raise _error(path, "has no arrival times: use arrivals poisson with a rate, or at_once")
    chosen, times = _window(rows, trace)
    if not chosen:
        raise _error(path, f"has no request between {trace.start} s and {trace.end} s")
    if timed and max(times) > LATEST_PS:
        raise _error(path, f"lasts longer than {LATEST_PS // 10**12:,} s: take a window of it")
    arrivals = array("q", times if timed else bytes(8 * len(chosen)))
    return _requests(rows, trace, chosen, arrivals)


def _error(path: Path, message: str) -> ScenarioError:
    return ScenarioError([Problem("", message, str(path), 1, 1)])


def _window(rows: Rows, trace: TraceSpec) -> tuple[list[int], list[int]]:
    """Return the requests that are taken, in the file's order, and their times in the run."""
    count = len(rows.prompt)
    if not rows.at:
        return list(range(min(count, trace.head or count))), [0] * count
    origin = 0 if rows.counts_from_start else min(rows.at)
    begin = origin + ps(trace.start)
    chosen = [n for n in range(count) if rows.at[n] >= begin]
    if trace.end is not None:
        beyond = origin + ps(trace.end)
        chosen = [n for n in chosen if rows.at[n] < beyond]
    if trace.head is not None:
        chosen = sorted(sorted(chosen, key=rows.at.__getitem__)[: trace.head])
    times = [rows.at[n] - begin for n in chosen]
    if trace.speed != 1:
        times = [round(at / trace.speed) for at in times]
    return chosen, times


def _requests(rows: Rows, trace: TraceSpec, chosen: list[int], arrivals: "array[int]") -> Requests:
    prompt = _column(rows.prompt, chosen, trace.longest_prompt)
    asked = Requests(prompt, _column(rows.output, chosen, trace.longest_output), arrivals)
    if rows.allowed:
        asked.allowed = _column(rows.allowed, chosen, trace.longest_output)
    if rows.prefix:
        size = rows.block
        asked.prefix_block = size
        asked.prefix = [
            rows.prefix[n] if tokens == rows.prompt[n] else rows.prefix[n][: -(-tokens // size)]
            for n, tokens in zip(chosen, prompt, strict=True)
        ]
    if rows.session:
        numbers: dict[str, int] = {}
        asked.session = array("q", (numbers.setdefault(rows.session[n], len(numbers))
                                    for n in chosen))  # fmt: skip
        asked.turn = _column(rows.turn, chosen, None)
    return asked


def _column(values: list[int], chosen: list[int], most: int | None) -> "array[int]":
    if most is None:
        return array("q", (values[n] for n in chosen))
    return array("q", (min(values[n], most) for n in chosen))
