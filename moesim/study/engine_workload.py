"""What an engine's command line leaves open: what moesim's own adds, and a workload.

The workload is a closed loop of random prompts, to be changed.
"""

from dataclasses import dataclass

from moesim.spec.engines.facts import tokens
from moesim.spec.megatron.reading import Entry, Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line of moesim adds."""

    accelerator: str
    """An accelerator or a cluster profile."""
    name: str = "imported"
    devices: int | None = None
    """Left out: one deployment."""
    version: str | None = None
    """Of the engine; left out, the newest known."""
    model: str | None = None
    """The model in place of the checkpoint that is named: of the catalogue, or a file."""
    prompt_tokens: int = 1024
    output_tokens: int = 1024
    in_flight: int = 64
    acceptance: str | None = None
    """Shares of guesses that are accepted: one, one by place with commas, or `none`."""


_LONGEST = ("max-model-len", "context-length", "max-seq-len")


def imported_workload(reading: Reading, wanted: Wanted) -> dict[str, Entry]:
    """Return a closed loop; shorter where the engine's longest request is."""
    names = [one for one in _LONGEST if reading.has(one)]
    longest = tokens(reading, names[0]) if names else None
    prompt, output = wanted.prompt_tokens, wanted.output_tokens
    why = "moesim's choice, not of the command line: change it"
    if longest is not None and prompt + output > longest:
        prompt, output = max(1, longest // 2), max(1, longest - longest // 2)
        why = f"both together the longest request, {longest} tokens"
    in_flight = _given(reading, "concurrency", wanted.in_flight)
    requests = _given(reading, "num-requests", 10 * in_flight)
    return {
        "serving.workload.arrivals": Entry(value="closed", why=why),
        "serving.workload.in_flight": Entry(value=in_flight, why=_said(reading, "concurrency")),
        "serving.workload.requests": Entry(value=requests, why=_said(reading, "num-requests")),
        "serving.workload.prompt": Entry(value=prompt, why="tokens"),
        "serving.workload.output": Entry(value=output, why="tokens"),
    }


def _given(reading: Reading, name: str, default: int) -> int:
    if reading.has(name):
        reading.mapped.add(name)
    return max(1, reading.count(name, default))


def _said(reading: Reading, name: str) -> str:
    return str(reading.given[name]) if reading.has(name) else ""
