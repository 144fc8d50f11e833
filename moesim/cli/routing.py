"""`moesim routing`: what the router of a scenario does to tokens, without any timing."""

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.guard import AsJson, Debug, Named, Quiet, Settings, guard


def routing(
    scenario: Named,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the study goes; left out: results/NAME-routing, or nowhere with --json.",
        ),
    ] = None,
    settings: Settings = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show loads, drops, imbalance and fan-out of every MoE layer; nothing is timed."""
    with guard(debug=debug):
        from moesim.spec.load import load_scenario
        from moesim.study.report.files import to_json
        from moesim.study.report.routing_page import save
        from moesim.study.report.routing_summary import summary
        from moesim.study.routing_study import routing_study

        study = routing_study(load_scenario(scenario, tuple(settings or ())))
        summed = summary(study)
        if as_json:
            typer.echo(to_json(summed))
        elif not quiet:
            _show(summed)
        folder = out
        if folder is None and not as_json:
            folder = Path("results") / f"{study.scenario.name}-routing"
        if folder is not None:
            save(study, folder)
            if not (as_json or quiet):
                typer.echo(f"Study saved in {folder}")


def _show(summed: dict[str, object]) -> None:
    from rich.console import Console

    from moesim.study.report.routing_terminal import print_study

    print_study(summed, Console())
