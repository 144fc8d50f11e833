"""Launch scripts are read as the shell would, as far as arguments go."""

import pytest

from moesim.errors import ScenarioError
from moesim.spec.megatron.shell import read_command


def words(text: str, **variables: str) -> list[str]:
    return [word.text for word in read_command(text, "x.sh", variables).words]


SCRIPT = """#!/bin/bash
# a comment with 'a quote
export ONE=1
TP=${TP:-2}
NAME="a b"
MODEL=(
    --num-layers 4   # comment
    --moe-layer-freq "([0]*1+[1]*3)"
    --wandb-exp-name "$NAME"
)
MORE="
   --bf16 \\
   --tensor-model-parallel-size $TP
"
if [ -n "$OTHER" ]; then
    MODEL+=(--swiglu)
fi
OUT=$(date +%s) torchrun --nproc_per_node 8 train.py "${MODEL[@]}" $MORE \\
    --save /x/$ONE --split 99,1,0 2>&1 | tee log.txt
"""


def test_a_script_gives_the_arguments_of_its_last_command() -> None:
    command = read_command(SCRIPT, "x.sh")
    assert [word.text for word in command.words] == [
        "--num-layers", "4", "--moe-layer-freq", "([0]*1+[1]*3)", "--wandb-exp-name", "a b",
        "--swiglu", "--bf16", "--tensor-model-parallel-size", "2", "--save", "/x/1",
        "--split", "99,1,0",
    ]  # fmt: skip
    assert [word.text for word in command.launcher][-3:] == ["--nproc_per_node", "8", "train.py"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--a 1 --b", ["--a", "1", "--b"]),
        ("--a '1 2' --b=\"3\"", ["--a", "1 2", "--b=3"]),
        ("--a \\\n  1 \\\r\n --b", ["--a", "1", "--b"]),
        ("--layout Et|(tt|)*30mL --b", ["--layout", "Et|(tt|)*30mL", "--b"]),
        ("--a $X --b ${X}k ${Y:-3} ${Z-4}", ["--a", "7", "--b", "7k", "3", "4"]),
        ("A=(--a 1)\nB=\"--b 2\"", ["--a", "1", "--b", "2"]),
        ("--a: 1\n--b: true\n--c: false\n--d: [x y]\n--e: '(1)' ",
         ["--a", "1", "--b", "--d", "x", "y", "--e", "(1)"]),
    ],
)  # fmt: skip
def test_words(text: str, expected: list[str]) -> None:
    assert words(text, X="7") == expected


def test_what_is_not_set_is_an_error_where_an_argument_needs_it() -> None:
    text = "UNUSED=$NOWHERE\n\ntorchrun --nnodes $N train.py --num-layers ${DEPTH} --tp $(nproc)"
    with pytest.raises(ScenarioError) as caught:
        read_command(text, "x.sh")
    messages = [str(problem) for problem in caught.value.problems]
    assert messages == [
        "x.sh:3:1: ${DEPTH} in '${DEPTH}' is not set; give it by --var DEPTH=VALUE",
        "x.sh:3:1: '$(nproc)' would have to be run; put what it gives in its place",
    ]
    assert words(text.replace("--tp $(nproc)", ""), DEPTH="4") == ["--num-layers", "4"]


def test_a_text_without_arguments_is_an_error() -> None:
    with pytest.raises(ScenarioError, match="holds no arguments"):
        read_command("echo hello", "x.sh")


def test_paths_that_are_not_set_do_no_harm() -> None:
    assert words("--save $OUT/x --num-layers 4") == ["--save", "${OUT}/x", "--num-layers", "4"]
