"""`moesim run`: simulate a scenario, save the result, show it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.guard import DOES_NOT_FIT, AsJson, Debug, Named, Quiet, Settings, guard

if TYPE_CHECKING:
    from moesim.study.result import Result
    from moesim.study.serving.result import ServingResult

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Wish:
    scenario: str
    settings: tuple[str, ...]
    out: Path | None
    quiet: bool
    as_json: bool
    trace: Path | None = None


def run(
    scenario: Named,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the result goes; left out: results/NAME, or nowhere with --json.",
        ),
    ] = None,
    settings: Settings = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with code 3 if it does not fit or misses the SLO.")
    ] = False,
    step_by_step: Annotated[
        bool,
        typer.Option(
            "--step-by-step",
            help="Simulate every decode step instead of skipping to the next change of the batch: "
            "slower, same times (serving).",
        ),
    ] = False,
    dialect: Annotated[
        str,
        typer.Option(
            "--metric-dialect",
            help="Whose definitions of latencies: vllm, guidellm, aiperf, mlperf (serving).",
        ),
    ] = "vllm",
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the requests as a trace that serving.workload.trace replays (serving).",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Simulate a scenario and show what it comes to."""
    with guard(debug=debug):
        wish = _Wish(scenario, tuple(settings or ()), out, quiet, as_json, trace)
        if _serves(scenario, settings):
            _serve(wish, dialect, check=check, step_by_step=step_by_step)
            return
        if trace is not None:
            raise _no_requests()
        if step_by_step:
            _refuse_steps(scenario)
        result = _run(wish)
        if check and not result.fits:
            typer.echo("moesim: the model does not fit into the devices' memory", err=True)
            raise typer.Exit(DOES_NOT_FIT)


def _serves(scenario: str, settings: list[str] | None) -> bool:
    """Tell a scenario of serving from one of training."""
    from moesim.spec.load import is_serving

    return is_serving(scenario, tuple(settings or ()))


def _no_requests() -> Exception:
    """Return the error that a step of training has no requests to write."""
    from moesim.errors import Problem, ScenarioError

    message = "--trace writes the requests of a serving scenario; this one trains"
    return ScenarioError([Problem("", message)])


def _refuse_steps(scenario: str) -> None:
    from moesim.errors import Problem, ScenarioError

    text = (
        f"--step-by-step is for serving, and '{scenario}' describes training, where no steps are "
        "skipped; leave it out"
    )
    raise ScenarioError([Problem("", text)])


def _serve(wish: _Wish, dialect: str, *, check: bool, step_by_step: bool) -> None:
    from moesim.errors import Problem, ScenarioError, nearest
    from moesim.spec.load import load_serving
    from moesim.study.serving.dialects import DIALECTS
    from moesim.study.serving.run import serve

    if dialect not in DIALECTS:
        hint = f"{nearest(dialect, DIALECTS)} Known: {', '.join(DIALECTS)}."
        raise ScenarioError([Problem("", f"unknown metric dialect '{dialect}'.{hint}")])
    scenario = load_serving(wish.scenario, wish.settings)
    result = serve(scenario, dialect, step_by_step=step_by_step)
    _show(result, wish)
    if wish.trace is not None:
        result.save_trace(wish.trace)
        if not (wish.as_json or wish.quiet):
            typer.echo(f"Requests saved in {wish.trace}; serving.workload.trace replays them")
    if check and not (result.fits and result.meets_slo):
        what = "objective is missed" if result.fits else "model does not fit into memory"
        typer.echo(f"moesim: the {what}", err=True)
        raise typer.Exit(DOES_NOT_FIT)


def _run(wish: _Wish) -> "Result":
    from moesim.spec.load import load_scenario
    from moesim.study.run import run as simulate

    scenario = load_scenario(wish.scenario, wish.settings)
    with _progress(shown=not (wish.quiet or wish.as_json)) as progress:
        result = simulate(scenario, progress)
    _show(result, wish)
    return result


def _show(result: "Result | ServingResult", wish: _Wish) -> None:
    """Print the result as wished, and save it."""
    from moesim.study.report.files import to_json

    folder = wish.out
    if folder is None and not wish.as_json:
        folder = Path("results") / result.scenario.name
    if wish.as_json:
        typer.echo(to_json(result.summary()))
    elif not wish.quiet:
        _report(result)
    if folder is not None:  # after the report: a full disk does not take it away
        result.save(folder)
        if not (wish.as_json or wish.quiet):
            typer.echo(f"Result saved in {folder}")


def _report(result: "Result | ServingResult") -> None:
    from rich.console import Console

    from moesim.study.report.serving import terminal as serving
    from moesim.study.report.terminal import print_result
    from moesim.study.result import Result

    if isinstance(result, Result):
        print_result(result, Console())
    else:
        serving.print_result(result, Console())


@contextmanager
def _progress(*, shown: bool) -> Iterator[Progress | None]:
    """Yield a function that moves a bar on stderr, or None where nobody would see one."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield None
        return
    with Bar(console=console, transient=True) as bar:
        tasks = {}

        def move(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        yield move
