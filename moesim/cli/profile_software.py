"""`moesim profile fit-software`: the host's time of a trainer or engine, over all of its cases."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.guard import Debug, guard
from moesim.cli.options import command_of
from moesim.cli.profile_host import ENGINES, fit_engine
from moesim.cli.progress import progress
from moesim.cli.tables import print_table

if TYPE_CHECKING:
    from moesim.study.validate.fit_software import Errors, Fitted, Seen


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command, one field each."""

    cases: Annotated[
        list[Path], typer.Argument(help="Case files with training steps or serving curves.")
    ]
    software: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The software profile whose trainers' cases count; or vllm, sglang, tensorrt-llm.",
        ),
    ] = "megatron"
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="Processes to simulate with.")
    ] = 2
    debug: Debug = False


@command_of(Options)
def fit_software(options: Options) -> None:
    """Fit host times: of a trainer per kernel and per stop, of an engine per iteration and request.

    Of a trainer: host time per kernel and synchronisation per layer of dropless experts. Of an
    engine: per iteration, per layer launched without a CUDA graph, and per request. They hold for
    all models, chips and cases; each line is one model under the constants that all other models
    choose. Single layers take no part in the fit and are shown beside it. Memory that the framework
    reserves is not fitted: no case measures what the driver sees. Nothing is written.
    """
    with guard(debug=options.debug):
        if options.software in ENGINES:
            fit_engine(options.cases, options.software, options.workers)
            return
        from moesim.cost.software import load_software
        from moesim.study.validate.fit_software import fit_software as fit

        profile = load_software(options.software)
        present = profile.host_per_kernel_s, profile.host_sync_s
        found, cases = _seen(options)
        _show(fit(found, present), present, cases - len(found))


def _seen(options: Options) -> "tuple[list[Seen], int]":
    """Return what was seen in all files, and how many cases there are."""
    from moesim.errors import Problem, ScenarioError
    from moesim.spec.cases import read_cases
    from moesim.study.validate.fit_software import of_trainer, seen

    found, total = [], 0
    for path in options.cases:
        file = read_cases(path)
        cases = of_trainer(file, options.software)
        total += len(cases)
        with progress(f"simulating {path.name}") as tell:
            found += seen(file, cases, workers=options.workers, progress=tell)
    if all(one.layer for one in found):
        where = ", ".join(str(path) for path in options.cases)
        message = f"no training step in {where} maps to software '{options.software}' and runs"
        raise ScenarioError([Problem("", message)])
    return found, total


def _show(fitted: "Fitted", present: tuple[float, float], skipped: int) -> None:
    print_table([
        {
            "left out": one.model,
            "cases": one.cases,
            "per kernel": _us(one.per_kernel_s),
            "stop": _us(one.sync_s),
            "median": _percent(one.median_error),
            "bias": f"{100 * one.bias:+.1f} %",
        }
        for one in fitted.left_out
    ], right=("cases", "per kernel", "stop", "median", "bias"))  # fmt: skip
    if len(fitted.left_out) == 1:
        typer.echo("one model only: its own cases chose, nothing is left out")
    typer.echo("")
    errors = [("steps", fitted.steps)]
    errors += [] if fitted.layers is None else [("single layers", fitted.layers)]
    print_table(
        [_row(name, one, fitted) for name, one in errors],
        right=("cases", "without", "present", "fitted", "left out"),
    )
    typer.echo(
        f"\nfitted: host_per_kernel {_us(fitted.per_kernel_s)}, host_sync {_us(fitted.sync_s)}; "
        f"present: {_us(present[0])}, {_us(present[1])}\n"
        f"{skipped} cases cannot be run (moesim validate says why). Median errors; left out: each "
        "step under the constants that the other models choose"
    )
    if fitted.at_end:
        typer.echo("a fitted constant is the last of the grid: these cases do not bound it")


def _row(name: str, errors: "Errors", fitted: "Fitted") -> dict[str, object]:
    left_out = _percent(fitted.median_left_out) if errors is fitted.steps else ""
    return {
        "median error": name,
        "cases": errors.cases,
        "without": _percent(errors.without),
        "present": _percent(errors.present),
        "fitted": _percent(errors.fitted),
        "left out": left_out,
    }


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} us"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
