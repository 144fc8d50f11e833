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
    from moesim.study.validate.fit_software import Fitted, Seen


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
            help="Whose cases count: megatron or fsdp; vllm, sglang or tensorrt-llm.",
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
    choose. Memory that the framework reserves is not fitted: no case measures what the driver sees.
    """
    with guard(debug=options.debug):
        if options.software in ENGINES:
            fit_engine(options.cases, options.software, options.workers)
            return
        from moesim.errors import Problem, ScenarioError
        from moesim.study.validate.fit_software import fit_software as fit

        found = _seen(options)
        if not found:
            raise ScenarioError([Problem("", f"no case of a trainer '{options.software}' can run")])
        _show(fit(found), len({one.model for one in found}))


def _seen(options: Options) -> "list[Seen]":
    from moesim.spec.cases import read_cases
    from moesim.study.validate.fit_software import of_trainer, seen

    found = []
    for path in options.cases:
        file = read_cases(path)
        with progress(f"simulating {path.name}") as tell:
            cases = of_trainer(file, options.software)
            found += seen(file, cases, workers=options.workers, progress=tell)
    return found


def _show(fitted: "Fitted", models: int) -> None:
    print_table([
        {
            "left out": one.model,
            "cases": one.cases,
            "per kernel": f"{1e6 * one.per_kernel_s:.0f} us",
            "synchronisation": f"{1e6 * one.sync_s:.0f} us",
            "median": f"{100 * one.median_error:.1f} %",
            "bias": f"{100 * one.bias:+.1f} %",
        }
        for one in fitted.left_out
    ], right=("cases", "per kernel", "synchronisation", "median", "bias"))  # fmt: skip
    typer.echo(
        f"host_per_kernel {1e6 * fitted.per_kernel_s:.0f} us, host_sync "
        f"{1e6 * fitted.sync_s:.0f} us, over {fitted.cases} cases of {models} models\n"
        f"median error {100 * fitted.median_before:.1f} % without, "
        f"{100 * fitted.median_after:.1f} % with, "
        f"{100 * fitted.median_left_out:.1f} % left out model by model (mean of medians)"
    )
