"""`moesim calibrate`: measure the local device with torch, write its profiles, verify them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.cli.guard import DOES_NOT_FIT, AsJson, Debug, guard
from moesim.cli.options import command_of
from moesim.cli.tables import print_json, print_table
from moesim.errors import Problem, ScenarioError

if TYPE_CHECKING:
    from moesim.calibrate.session import Calibration, Progress
    from moesim.calibrate.verify.compare import Verification


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command, one field each."""

    budget: Annotated[
        str, typer.Option(metavar="TIME", help="How long to measure: 2m, 10m, 1h.")
    ] = "2m"
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cuda (ROCm too), mps or cpu; left out, the first."),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=4096, help="Threads of a CPU process; left out, all, or 1 if it is busy."
        ),
    ] = None
    processes: Annotated[
        int,
        typer.Option(
            min=1, max=1024, help="Ranks measured at once, with the collectives between them."
        ),
    ] = 1
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the profiles go.")] = Path(
        "calibrated"
    )
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the profiles; the device's.")
    ] = None
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again; left out, an earlier run goes on.")
    ] = False
    accept_noise: Annotated[
        bool, typer.Option("--accept-noise", help="Fit a noisy device too, with wide intervals.")
    ] = False
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Then time small models and compare with the prediction."),
    ] = False
    check: Annotated[
        bool, typer.Option("--check", help="Exit with code 3 if --verify misses its targets.")
    ] = False
    as_json: AsJson = False
    debug: Debug = False


@command_of(Options)
def calibrate(options: Options) -> None:
    """Measure this machine's device with torch and write profiles that scenarios can use.

    Needs torch and scipy (the extra `calibrate`). Ctrl-C keeps what was measured; the same command
    goes on from there. With --verify small dense and MoE models are timed too.
    """
    with guard(debug=options.debug):
        _calibrate(options)


def _calibrate(options: Options) -> None:
    from moesim.calibrate.files import write
    from moesim.calibrate.session import Wish
    from moesim.calibrate.session import calibrate as measure

    wish = Wish(
        out=options.out, budget_s=seconds(options.budget), device=options.device,
        threads=options.threads, processes=options.processes, name=_plain(options.name),
        fresh=options.fresh, accept_noise=options.accept_noise,
    )  # fmt: skip
    try:
        with _progress(shown=not options.as_json) as progress:
            done = measure(wish, progress)
    except KeyboardInterrupt:
        typer.echo(
            f"moesim: what was measured is kept in {options.out}; the same command goes on from "
            "there",
            err=True,
        )
        raise
    written = write(done, options.out)
    facts = summary(done)
    facts["files"] = [str(getattr(written, field.name)) for field in fields(written)]
    if not options.as_json:
        _show(done, facts)
    if not options.verify:
        if options.as_json:
            print_json(facts)
        return
    _verify(options, done, facts)


def _verify(options: Options, done: "Calibration", facts: dict[str, Any]) -> None:
    from moesim.calibrate.verify.compare import as_rows, medians, misses
    from moesim.calibrate.verify.run import verify

    with _progress(shown=not options.as_json) as progress:
        found = verify(done, progress)
    missed = misses(found)
    if options.as_json:
        print_json({**facts, "verify": as_rows(found), "medians": medians(found), "missed": missed})
    else:
        _show_verified(found)
        for line in missed:
            typer.echo(f"missed: {line}")
    if options.check and missed:
        raise typer.Exit(DOES_NOT_FIT)


_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)")


def seconds(text: str) -> float:
    """Return a budget such as 2m, 90s or 1h in seconds; ScenarioError for another text."""
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        message = f"--budget '{text[:40]}' is no time; write 90s, 2m or 1h"
        raise ScenarioError([Problem("", message)])
    value = float(match.group(1)) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match.group(2)]
    if not 10 <= value <= 86400:
        message = f"--budget '{text[:40]}' is out of bounds; write a time from 10s to 24h"
        raise ScenarioError([Problem("", message)])
    return value


def _plain(name: str | None) -> str | None:
    if name is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return name
    message = "--name may have letters, digits, '.', '_' and '-' only: it names files"
    raise ScenarioError([Problem("", message)])


@contextmanager
def _progress(*, shown: bool) -> "Iterator[Progress | None]":
    """Yield a function that moves a bar with the time left, or None where nobody would see it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)

        def move(what: str, done: float, total: float) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield move


def summary(done: "Calibration") -> dict[str, Any]:
    """Return what a calibration found, in base units."""
    import numpy as np

    chip = done.fitted.chip
    errors = [abs(one.error) for one in done.fitted.held_out]
    middle, high = np.quantile(errors, (0.5, 0.9)) if errors else (None, None)
    return {
        "name": done.name,
        "device": done.target.name,
        "torch": done.target.torch_version,
        "processes": done.target.processes,
        "compute_units": done.target.compute_units,
        "peak_flop_per_s": dict(chip.peak_flop_per_s),
        "memory_bandwidth_bytes_per_s": chip.memory_bandwidth_bytes_per_s,
        "samples": len(done.samples),
        "measured_now": done.measured,
        "spread": done.spread,
        "conditions": done.conditions,
        "held_out": len(errors),
        "held_out_median_error": middle,
        "held_out_p90_error": high,
    }


def _show(done: "Calibration", facts: dict[str, Any]) -> None:
    from moesim.calibrate.device import is_busy
    from moesim.units import readable

    typer.echo(f"{done.target.name}, torch {done.target.torch_version}: {done.name}")
    for dtype, rate in done.fitted.chip.peak_flop_per_s.items():
        typer.echo(f"  best {dtype} product  {readable(rate, 'flop_per_s')}")
    rate = done.fitted.chip.memory_bandwidth_bytes_per_s
    typer.echo(f"  largest copy       {readable(rate, 'bytes_per_s')} (read and written)")
    typer.echo(
        f"  {len(done.samples)} samples, {done.measured} of them new; repeats spread by "
        f"{done.spread:.1%}; {done.conditions}"
    )
    if is_busy(done.target):
        typer.echo(
            f"  {done.target.compute_units} thread(s) per process were used, fewer than there are "
            "processors, as asked for or since others use them; --threads N decides"
        )
    typer.echo("")
    typer.echo("Shapes left out of the fit, predicted against measured:")
    print_table(_held_out_rows(done), right=("shapes", "median", "p90"))
    typer.echo("")
    print_table(_worst_rows(done), right=("measured", "predicted", "error"))
    typer.echo("")
    for path in facts["files"]:
        typer.echo(f"written: {path}")
    typer.echo(
        f"Use it: cluster: {{profile: {facts['files'][1]}, devices: {done.target.processes}}} and "
        f"software: {facts['files'][2]}"
    )


def _held_out_rows(done: "Calibration") -> list[dict[str, object]]:
    import numpy as np

    found: dict[tuple[str, str, str], list[float]] = {}
    for one in done.fitted.held_out:
        found.setdefault(one.case.curve, []).append(abs(one.error))
    return [
        {
            "operator": f"{operator} {variant}".strip(),
            "dtype": dtype,
            "shapes": len(errors),
            "median": f"{np.median(errors):.1%}",
            "p90": f"{np.quantile(errors, 0.9):.1%}",
        }
        for (operator, dtype, variant), errors in found.items()
    ]


_SHOWN = 8
"""Left-out shapes shown one by one: the slowest, which weigh most."""


def _worst_rows(done: "Calibration") -> list[dict[str, object]]:
    from moesim.units import readable

    slowest = sorted(done.fitted.held_out, key=lambda one: -one.measured_s)[:_SHOWN]
    return [
        {
            "slowest left out": f"{one.case.operator} {one.case.variant}".strip(),
            "shape": one.case.text,
            "measured": readable(one.measured_s, "s"),
            "predicted": readable(one.predicted_s, "s"),
            "error": f"{one.error:+.1%}",
        }
        for one in slowest
    ]


def _show_verified(found: "Verification") -> None:
    from moesim.calibrate.verify.compare import as_rows, medians
    from moesim.units import readable

    typer.echo("\nSmall models, predicted from the profile against measured:")
    rows = [
        {
            "model": row["model"],
            "phase": row["phase"],
            "measured": readable(row["measured_s"], "s"),
            "predicted": readable(row["predicted_s"], "s"),
            "error": f"{row['error']:+.1%}" + ("*" if row["disturbed"] else ""),
            "tokens/s": f"{row['tokens_per_s']:,.0f}",
            "predicted tokens/s": f"{row['predicted_tokens_per_s']:,.0f}",
            "memory": _bytes(row["memory_bytes"]),
            "predicted memory": _bytes(row["predicted_memory_bytes"]),
            "over dense": _ratio(row["over_dense"]),
            "predicted over dense": _ratio(row["predicted_over_dense"]),
        }
        for row in as_rows(found)
    ]
    print_table(rows, right=tuple(list(rows[0])[2:]) if rows else ())
    if any(row["disturbed"] for row in as_rows(found)):
        typer.echo("* other programs held processors meanwhile: not counted below")
    typer.echo("")
    target_rows = [
        {
            "median absolute error": name,
            "found": f"{middle['median']:.1%}",
            "target": f"{middle['target']:.0%}",
        }
        for name, middle in medians(found).items()
    ]
    print_table(target_rows, right=("found", "target"))


def _bytes(size: float | None) -> str:
    from moesim.units import three_digits

    return "-" if size is None else f"{three_digits(size / 2**20)} MiB"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
