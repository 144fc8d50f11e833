"""A chip with round figures, for sums that can be done by hand."""

from moesim.cost.curves import Chip

ROUND = Chip(
    name="round",
    vendor="none",
    peak_flop_per_s={"bf16": 1e15, "fp8": 2e15, "fp4": 4e15, "int8": 2e15},
    memory_bandwidth_bytes_per_s=2e12,
    compute_units=100,
    l2_bytes=5e7,
    link_bytes_per_s=4e11,
)
