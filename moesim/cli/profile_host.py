"""`moesim profile fit-software` for engines: host times over all of their serving curves."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from moesim.cli.progress import progress
from moesim.cli.tables import print_table

if TYPE_CHECKING:
    from moesim.study.validate.inference.fit_host import FittedHost

_NAMES = ("TTFT", "TPOT", "offline throughput")
ENGINES = ("vllm", "sglang", "tensorrt-llm")
_RIGHT = ("rows", "iteration", "sequence", "request", "TTFT", "bias", "TPOT", "bias ",
          "offline", "bias  ")  # fmt: skip


def fit_engine(paths: list[Path], engine: str, workers: int) -> None:
    """Print the host times that all curves of an engine choose, and each model left out."""
    from moesim.errors import Problem, ScenarioError
    from moesim.spec.cases import read_cases
    from moesim.study.validate.inference.fit_host import fit_host, of_engine, seen_curves

    found = []
    for path in paths:
        file = read_cases(path)
        with progress(f"simulating {path.name}") as tell:
            found += seen_curves(file, of_engine(file, engine), workers=workers, progress=tell)
    if not found:
        raise ScenarioError([Problem("", f"no serving curve of '{engine}' can run")])
    _show(fit_host(found))


def _show(fitted: "FittedHost") -> None:
    print_table([
        {
            "left out": one.model, "rows": one.rows,
            "iteration": _us(one.host.iteration_s), "sequence": _us(one.host.sequence_s),
            "request": f"{1e3 * one.host.request_s:.0f} ms",
            "TTFT": _share(one.ttft_error), "bias": _signed(one.ttft_bias),
            "TPOT": _share(one.tpot_error), "bias ": _signed(one.tpot_bias),
            "offline": _share(one.rate_error), "bias  ": _signed(one.rate_bias),
        }
        for one in fitted.left_out
    ], right=_RIGHT)  # fmt: skip
    host = fitted.host
    typer.echo(
        f"host_per_iteration {_us(host.iteration_s)}, host_per_sequence {_us(host.sequence_s)}, "
        f"host_per_request {1e3 * host.request_s:.0f} ms, over {fitted.rows} rows\n"
        + "; ".join(
            f"median error of {name} {_share(before)} without, {_share(after)} with"
            for name, before, after in zip(_NAMES, fitted.before, fitted.after, strict=True)
        )
    )


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} us"


def _share(error: float) -> str:
    return "" if isnan(error) else f"{100 * error:.1f} %"


def _signed(bias: float) -> str:
    return "" if isnan(bias) else f"{100 * bias:+.1f} %"
