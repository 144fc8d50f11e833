"""What is said of random loads beside their errors: scatter of draws, band, middles of shapes."""

import numpy as np

from moesim.calibrate.measurements import Group
from moesim.calibrate.random_loads import note
from moesim.cost.curves import Array, Curve
from moesim.cost.families.moe import MOE, expert_layer_s, start
from moesim.cost.families.moe_loads import with_loads
from tests.unit.cost.families.chips import ROUND

CURVE = Curve(
    family=MOE.name, dtype="bf16", variant="", parameters=start(ROUND, "bf16"), surface=None,
    rows=0, median_error=0.0, p90_error=0.0, source="test",
)  # fmt: skip


def group(ranks: float) -> Group:
    tokens = np.exp2(np.arange(4.0, 14.0))
    shape = {"hidden_size": 4096.0, "expert_ffn_size": 2048.0, "tp_size": 1.0, "gated": 1.0,
             "top_k": 8.0, "num_experts": 256.0, "ep_size": ranks, "routing": 1.2}  # fmt: skip
    columns = {name: np.full(len(tokens), float(value)) for name, value in shape.items()}
    samples = with_loads({**columns, "num_tokens": tokens})
    numbers = np.ones(len(tokens), dtype=np.uint64)
    return Group(
        operator="moe", family=MOE.name, hardware="round", library="x", version="1", dtype="bf16",
        variant="kernel, skewed", samples=samples, shapes=numbers, points=numbers, sources=(),
        seconds=expert_layer_s(samples, ROUND, "bf16", CURVE.parameters),
    )  # fmt: skip


def errors(found: Group, by: float) -> Array:
    """Errors of the expected time where every row took `by` of it."""
    return np.full(len(found.seconds), 1 / by - 1)


def test_what_is_off_everywhere_is_no_scatter() -> None:
    found = group(16)
    exact = note(found, CURVE, ROUND, errors(found, 1.0))
    slow = note(found, CURVE, ROUND, errors(found, 1.25))
    assert "100% of rows" in exact and "off by 0.0%, p90 0.0%" in exact
    assert "off by 20.0%, p90 20.0%" in slow and "100% of rows" not in slow


def test_draws_scatter_more_with_more_ranks() -> None:
    def scatter(ranks: float) -> float:
        text = note(group(ranks), CURVE, ROUND, errors(group(ranks), 1.0))
        return float(text.split("scatter ")[1].split("%")[0])

    assert scatter(1) < scatter(16)
