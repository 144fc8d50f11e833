"""`moesim profile`: fit kernel profiles, show, compare, check, transfer, import."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.cli.guard import AsJson, Debug, guard
from moesim.cli.profile_import import import_tables
from moesim.cli.profile_software import fit_software
from moesim.cli.profile_transfer import Tables, transfer
from moesim.cli.progress import progress
from moesim.cli.tables import print_json, print_table
from moesim.errors import CalibrationError

if TYPE_CHECKING:
    from moesim.calibrate.check import Row
    from moesim.calibrate.measurements import Group, Skipped
    from moesim.cost.kernel_profiles import KernelProfile

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Kernel profiles: fit, show, compare, check, transfer, import.",
)
app.command("import")(import_tables)
app.command("transfer")(transfer)
app.command("fit-software")(fit_software)


@app.command()
def fit(
    tables: Tables,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the profiles go.")],
    debug: Debug = False,
) -> None:
    """Fit a kernel profile for each device and library in the tables.

    One family of shapes in five and one shape in ten are kept out of the fit; the errors stated
    are on those. The same tables give the same bytes.
    """
    with guard(debug=debug):
        from moesim.calibrate.measurements import digest, joined, table_files
        from moesim.calibrate.table_fit import fit_profiles
        from moesim.cost.kernel_profiles import profile_text

        files = table_files(tables)
        out.mkdir(parents=True, exist_ok=True)
        groups, skipped = _read(files)
        _tell_left_out(skipped)
        digests = tuple((file.name, digest(file)) for file in files)
        with progress("fitting") as told:
            profiles, unfitted = fit_profiles(joined(groups), digests, told)
        for one in unfitted:
            group = one.group
            typer.echo(
                f"no curve for {group.family} {group.dtype} on {group.hardware} with "
                f"{group.library} {group.version}: {one.reason}",
                err=True,
            )
        if not profiles:
            raise CalibrationError("nothing to fit in these tables: no profile was written")
        for profile in profiles:
            (out / f"{profile.name}.yaml").write_text(profile_text(profile), encoding="utf-8")
            typer.echo(f"{out / profile.name}.yaml: {len(profile.curves)} curves")


def _tell_left_out(skipped: "list[Skipped]") -> None:
    for one in skipped:
        what = " ".join(part for part in (one.operator, one.dtype) if part)
        where = f" on {one.hardware} with {one.library}" if one.hardware else ""
        typer.echo(f"left out, {one.rows:,} rows of {what}{where}: {one.reason}", err=True)


def _read(files: list[Path]) -> "tuple[list[Group], list[Skipped]]":
    from moesim.calibrate.measurements import read_groups

    groups: list[Group] = []
    skipped: list[Skipped] = []
    for file in files:
        found, left_out = read_groups(file)
        groups += found
        skipped += left_out
    return groups, skipped


@app.command()
def check(
    tables: Tables,
    profiles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Profiles to judge; left out: the shipped.")
    ] = None,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Judge all rows, also those the fit has seen.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the table as JSON.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Judge profiles on measurement tables: median and 90th percentile of the relative error.

    Rows that the fit has seen are left out; a table that took no part in a fit counts whole. The
    roofline is the datasheet's bound plus the floor of what was measured.
    """
    with guard(debug=debug):
        from moesim.calibrate.check import check as judge
        from moesim.calibrate.measurements import digest, table_files

        if out is not None:
            out.open("a", encoding="utf-8").close()  # found out before minutes of work
        known = _profiles(profiles)
        seen = {found for profile in known for _, found in profile.tables}
        rows: list[Row] = []
        for file in table_files(tables):
            groups, skipped = _read([file])
            rows += judge(groups, skipped, known, all_rows=all_rows or digest(file) not in seen)
        if out is not None:
            text = json.dumps([row.record() for row in rows], indent=1)
            out.write_text(text + "\n", encoding="utf-8")
        print_table([_shown(row) for row in rows], right=("rows", "median", "p90", "bias"))


def _profiles(folder: Path | None) -> "list[KernelProfile]":
    from moesim.cost.kernel_profiles import kernel_profile_names, load_kernels

    if folder is None:
        return [load_kernels(name) for name in kernel_profile_names()]
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise CalibrationError(f"no kernel profiles (*.yaml) in {folder}")
    return [load_kernels(str(file)) for file in files]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _pair(median: float | None, p90: float | None) -> str:
    return "" if median is None or p90 is None else f"{100 * median:.1f}/{100 * p90:.1f}"


def _shown(row: "Row") -> dict[str, object]:
    return {
        "operator": row.operator,
        "hardware": row.hardware,
        "library": row.library,
        "dtype": row.dtype,
        "variant": row.variant,
        "rows": row.rows or row.skipped,
        "median": _percent(row.median),
        "p90": _percent(row.p90),
        "bias": _percent(row.bias),
        "families": _pair(row.families_median, row.families_p90),
        "points": _pair(row.points_median, row.points_p90),
        "roofline": _percent(row.roofline_median),
        "skipped": row.reason,
    }


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A profile; left out, all are listed.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the kernel profiles, or show the curves of one."""
    with guard(debug=debug):
        from moesim.cost.kernel_profiles import kernel_profile_names, load_kernels

        if name is None:
            rows = [_listed(load_kernels(known)) for known in kernel_profile_names()]
        else:
            profile = load_kernels(name)
            rows = [_curve_row(c, k) for c, k in zip(profile.curves, profile.kinds, strict=True)]
        if as_json:
            print_json(rows)
        else:
            print_table(rows, right=("curves", "rows", "median", "p90"))


def _listed(profile: "KernelProfile") -> dict[str, object]:
    return {
        "profile": profile.name,
        "accelerator": profile.accelerator,
        "library": profile.library,
        "curves": len(profile.curves),
        "version": profile.version,
    }


def _curve_row(curve: Any, kind: str) -> dict[str, object]:
    return {
        "operator": curve.family,
        "dtype": curve.dtype,
        "variant": curve.variant,
        "kind": kind,
        "rows": curve.rows,
        "median": _percent(curve.median_error),
        "p90": _percent(curve.p90_error),
        "parameters": ", ".join(f"{k} {v:.3g}" for k, v in curve.parameters.items()),
        "source": curve.source,
    }


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A profile, by name or path.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    debug: Debug = False,
) -> None:
    """Compare two profiles: the parameters and errors of the curves that both have."""
    with guard(debug=debug):
        from moesim.cost.kernel_profiles import curve_index, load_kernels

        ours, theirs = curve_index(load_kernels(first)), curve_index(load_kernels(second))
        rows = []
        for key in sorted(set(ours) & set(theirs)):
            for name in ours[key].parameters:
                a, b = ours[key].parameters[name], theirs[key].parameters.get(name)
                ratio = f"{b / a:.3g}" if b is not None else ""
                shown = f"{b:.4g}" if b is not None else ""
                rows.append({"operator": key[0], "dtype": key[1], "variant": key[2],
                             "parameter": name, first: f"{a:.4g}", second: shown,
                             "ratio": ratio})  # fmt: skip
        print_table(rows)
        missing = sorted(set(ours) ^ set(theirs))
        if missing:
            listed = "; ".join(" ".join(part for part in key if part) for key in missing)
            typer.echo(f"only in one of them: {listed}")
