"""`moesim explain`: what a key means, from the docstrings of the schema."""

from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.explain_differences import explain_differences
from moesim.cli.guard import Debug, guard

if TYPE_CHECKING:
    from moesim.spec.explain import Key


def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A key such as training.recompute, ep or accelerator.peak.bf16; left out, the "
            "tree of keys."
        ),
    ] = None,
    other: Annotated[
        str | None,
        typer.Argument(help="With two scenarios: what differs, and what each difference does."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Say what a key means and what may stand there, or in what two scenarios differ.

    Keys of scenarios, of models and of profiles of machines and software. Of two scenarios each
    difference is changed alone, and then one after the other until the first is the second.
    """
    with guard(debug=debug):
        if key is not None and other is not None:
            explain_differences(key, other)
            return
        from moesim.spec.explain import find, tree

        if key is None:
            for root in tree():
                _print_tree(root, 0)
        else:
            _print_key(find(key))


def _print_tree(key: "Key", depth: int) -> None:
    line = f"{'  ' * depth}{key.name}"
    typer.echo(f"{line:<32}{_first_sentence(key.text)}".rstrip())
    for child in () if key.is_figure else key.keys:
        _print_tree(child, depth + 1)


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].removesuffix(".")


def _print_key(key: "Key") -> None:
    typer.echo(key.path)
    typer.echo(f"  {' '.join(key.text.split())}")
    typer.echo(f"  type:     {key.kind}")
    if key.example:
        typer.echo(f"  example:  {key.example}")
    if key.allowed:
        typer.echo(f"  allowed:  {', '.join(key.allowed)}")
    typer.echo(f"  default:  {'required' if key.default is None else key.default}")
    for path in key.also:
        typer.echo(f"  also:     {path}")
    if key.keys:
        typer.echo("  keys:")
        width = max(len(child.name) for child in key.keys)
        for child in key.keys:
            typer.echo(f"    {child.name:<{width}}  {' '.join(child.text.split())}".rstrip())
