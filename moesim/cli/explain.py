"""`moesim explain`: what a key means, from the docstrings of the schema."""

from typing import TYPE_CHECKING, Annotated

import typer

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
    debug: Debug = False,
) -> None:
    """Say what a key means and what may stand there.

    Keys of scenarios, of models and of profiles of machines and software.
    """
    with guard(debug=debug):
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
