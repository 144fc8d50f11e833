"""`moesim explain A B`: two scenarios key by key, and what each difference does."""

from typing import TYPE_CHECKING, Any

import typer

from moesim.cli.tables import print_table

if TYPE_CHECKING:
    from moesim.study.waterfall import Effect, Measure, Waterfall

_LONGEST = 48


def explain_differences(first: str, second: str) -> None:
    """Print in what two scenarios differ and what each difference does."""
    from moesim.spec.load import load_scenario
    from moesim.study.waterfall import waterfall

    found = waterfall(load_scenario(first), load_scenario(second))
    if not found.effects:
        typer.echo("No key differs.")
        return
    for one in found.derived:
        typer.echo(f"{one.key}: {_text(one.before)} -> {_text(one.after)}")
    print_table(
        _rows(found), right=("step alone", "memory alone", "step in turn", "memory in turn")
    )
    for effect in found.effects:
        if effect.reason:
            typer.echo(f"{effect.difference.key} cannot change alone: {effect.reason}")


def _rows(found: "Waterfall") -> list[dict[str, str]]:
    return [
        _row("first", "", "", (None, found.before), signed=False),
        *(_effect_row(one) for one in found.effects),
        _row("interaction", "", "", (found.interaction, None)),
        _row("second", "", "", (found.whole, found.after), signed=False),
    ]


def _effect_row(one: "Effect") -> dict[str, str]:
    what = one.difference
    return _row(what.key, _text(what.before), _text(what.after), (one.alone, one.in_turn))


def _row(
    key: str, first: str, second: str,
    measures: "tuple[Measure | None, Measure | None]", *, signed: bool = True,
) -> dict[str, str]:  # fmt: skip
    alone, in_turn = measures
    step, memory = _measure(alone, signed=True)
    step_after, memory_after = _measure(in_turn, signed=signed)
    return {
        "key": key, "first": first, "second": second, "step alone": step,
        "memory alone": memory, "step in turn": step_after, "memory in turn": memory_after,
    }  # fmt: skip


def _measure(one: "Measure | None", *, signed: bool) -> tuple[str, str]:
    from moesim.units import readable

    if one is None:
        return "", ""
    found = []
    for value, dimension in ((one.step_s, "s"), (one.peak_bytes, "bytes")):
        sign = ("-" if value < 0 else "+" if value > 0 else "") if signed else ""
        found.append(sign + readable(abs(value), dimension))
    return found[0], found[1]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
        text = f"{{{text}}}"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(_text, value))}]" if value else "none"
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
