"""Words of a case about what sits between the kernels, as keys of a scenario."""

from typing import Any

import pytest

from moesim.spec.cases import Case
from moesim.study.validate.options import Reading, read_graphs, read_loss, read_precision


def case(precision: str = "bf16", hardware: str = "b200-hgx", **options: Any) -> Case:
    words = {"precision": precision, "hardware": hardware, "options": options}
    return Case("a", "train_step", words)


@pytest.mark.parametrize(
    ("said", "fused", "key"),
    [
        ({}, True, None),
        ({}, False, "unfused"),
        ({"cross_entropy_fusion": True}, False, "native"),
        ({"cross_entropy_fusion": False}, True, "unfused"),
    ],
)
def test_the_loss(said: dict[str, Any], fused: bool, key: str | None) -> None:
    reading = Reading()
    read_loss(case(**said), reading, fused=fused)
    assert reading.training.get("cross_entropy") == key


@pytest.mark.parametrize(
    ("said", "compiled", "key"),
    [
        (None, False, None),
        (None, True, "full"),
        ("none", False, None),
        ("full_iteration", False, "full"),
        ("local:full_iteration", False, "full"),
        ("transformer_engine:[attn, moe_router, moe_preprocess]", False, "attention_router"),
        ("transformer_engine:[moe_router, moe_preprocess]", False, None),
    ],
)
def test_graphs(said: str | None, compiled: bool, key: str | None) -> None:
    reading = Reading()
    read_graphs(case(cuda_graph=said), reading, compiled=compiled)
    assert reading.training.get("cuda_graph") == key


@pytest.mark.parametrize(
    ("precision", "hardware", "recipe"),
    [
        ("fp8-delayed", "h100-hgx", "delayed"),
        ("fp8-current-scaling", "h100-hgx", "tensorwise"),
        ("fp8-blockwise", "h100-hgx", "blockwise"),
        ("mxfp8", "b200-hgx", "mxfp8"),
        ("mxfp8 (parenthesised value; on H100 1x128/128x128 block scaling)", "h100-hgx",
         "blockwise"),
        ("bf16", "h100-hgx", None),
    ],
)  # fmt: skip
def test_recipes(precision: str, hardware: str, recipe: str | None) -> None:
    reading = Reading()
    read_precision(case(precision, hardware), reading)
    assert reading.training.get("fp8_recipe") == recipe
