"""The requests of a run as a trace file that gives the same run again."""

from array import array
from dataclasses import replace
from pathlib import Path

from moesim.errors import Problem, ScenarioError
from moesim.sim.serving.requests import ps
from moesim.study.serving.simulate import ServingOutcome
from moesim.study.serving.traces.write import write_trace


def export(outcome: ServingOutcome, path: Path) -> Path:
    """Write the requests of a run to `path` as Mooncake JSON lines; return it.

    Their times are those at which they reached the engine, as a trace's times are: a run's result
    has them when they left their clients, host_per_request earlier, and a replay takes that off
    again. Raises ScenarioError where the file cannot be written.
    """
    asked = outcome.requests
    way = ps(outcome.run.deployment.software.host_per_request_s)
    reached = array("q", (at + way for at in asked.arrival))
    try:
        write_trace(replace(asked, arrival=reached), path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ScenarioError([Problem("", f"cannot write {path}: {reason}")]) from None
    return path
