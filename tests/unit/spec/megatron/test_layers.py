"""--moe-layer-freq says which layers have experts."""

import pytest

from moesim.spec.megatron.layers import Pattern, moe_layers, pattern


@pytest.mark.parametrize(
    ("text", "layers", "expected"),
    [
        ("1", 4, Pattern(0, 1)),
        ("([0]*3+[1]*58)", 61, Pattern(3, 1)),
        ("[0]*1+[1]*3", 4, Pattern(1, 1)),
        ("([0,1]*12)", 24, Pattern(0, 2)),
        ("[0,0,1]*2", 6, Pattern(0, 3)),
        ("2", 4, Pattern(0, 2, shifted=True)),
        ("[1,1,1]", 3, Pattern(0, 1)),
    ],
)
def test_patterns(text: str, layers: int, expected: Pattern) -> None:
    assert pattern(moe_layers(text, layers)) == expected


@pytest.mark.parametrize(
    ("text", "layers", "message"),
    [
        ("x", 4, "is no whole number and no sum"),
        ("[0]*2+[1]*3", 4, "has 5 layers, --num-layers 4"),
        ("[1]*99999", 4, "repeats a list"),
        ("[0]*4", 4, "leaves no layer"),
        ("[1,1,0,1]", 4, "follows no rule"),
        ("2", 3, "follows no rule"),
    ],
)
def test_what_moesim_cannot_say_is_an_error(text: str, layers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        pattern(moe_layers(text, layers))
