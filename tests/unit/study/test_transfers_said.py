"""What a report says of transfers names those that are hidden, and only those."""

import pytest

from moesim.study.report.assumptions import transfers


@pytest.mark.parametrize(
    ("exchange", "tensor", "ring", "begins"),
    [
        ("none", False, False, "Tensor, context and expert parallel transfers are fully exposed."),
        ("none", True, True, "Expert parallel transfers are fully exposed."),
        ("batch", False, False, "Tensor and context parallel transfers are fully exposed."),
        ("shared_expert", True, False, "Context parallel transfers are fully exposed."),
        ("batch", True, True, "In paired passes dispatch and combine run beside"),
    ],
)
def test_what_is_exposed_comes_first(exchange: str, tensor: bool, ring: bool, begins: str) -> None:
    said = transfers(exchange, tensor=tensor, ring=ring)
    assert said.startswith(begins)
    assert ("beside the products" in said) == tensor
    assert ("Keys and values" in said) == ring
