"""Rows of MoE layers: what their routing says of the load, and which ran on untuned kernels."""

from typing import TYPE_CHECKING

import numpy as np

from moesim.cost.families.moe_draws import FIRST, LEFT_OVER, MOST, SPREAD

if TYPE_CHECKING:
    import pandas as pd

RANDOM = "random_routing"
"""Quality of rows whose load a random draw decides (measurements/README)."""

_LEFT_OVER = {
    "trtllm 1.0.0": MOST, "trtllm 1.3.0rc10": FIRST, "sglang 0.5.10": FIRST,
}  # fmt: skip
"""Collections that hand out the rows that rounding a power law leaves over otherwise than most do:
with one token and 8 choices, ranks with 1/2 to 1/32 of 256 experts take as long as all 8 experts
do, where in others they take as long as with even routing (`moe_draws.LEFT_OVER`). With 4 tokens on
one rank, 18 experts' weights are read in that of 1.0.0, and 32 in all others."""


def with_routing(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows with routing as a number and what loads are drawn by.

    routing: 0 where loads are even or EPLB makes them so, else the exponent of the power law;
    drawn_at_random: whether draws decide the load of the busiest of several ranks; the rest is of
    `moe_loads.with_loads`.
    """
    routing = frame["routing"].astype(str)
    placed = routing.str.endswith("_eplb")
    even = routing.isin(["balanced", "uniform"]) | placed
    exponent = routing.str.extract(r"power_law_([0-9.]+)")[0].astype(float)
    slots = frame.get("num_expert_slots", frame["num_experts"]).fillna(frame["num_experts"])
    collection = frame["library"] + " " + frame["version"]
    return frame.assign(
        routing=exponent.where(~even, 0.0).fillna(0.0),
        drawn_at_random=~even & (frame["ep_size"] > 1),
        drawn_exponent=exponent.fillna(0.0),
        drawn_slots=slots.where(placed, 0.0),
        drawn_in_groups=_in_groups(frame),
        drawn_left_over=collection.map(_LEFT_OVER).fillna(SPREAD).map(LEFT_OVER.index),
    )


_DEEPSEEK_V3 = {"hidden_size": 7168, "expert_ffn_size": 2048, "num_experts": 256, "top_k": 8}
_UNGROUPED = ("sglang 0.5.10", "vllm 0.14.0")


def _in_groups(frame: "pd.DataFrame") -> "pd.Series[bool]":
    """Tell rows that the collector routes as DeepSeek-V3 does.

    TensorRT-LLM's kernels of low latency with 8 choices, the model itself in SGLang and vLLM. Read
    off the times, not off the collector: of these shapes only, balanced rows take less time than
    rows under a power law where both read many experts, and on one rank as long as on two.
    """
    import pandas as pd

    kernel = frame["kernel"].astype(str) if "kernel" in frame else frame["routing"].astype(str)
    model = np.all([frame[name] == size for name, size in _DEEPSEEK_V3.items()], axis=0)
    collection = frame["library"] + " " + frame["version"]
    grouped = frame["library"].isin(["sglang", "vllm"]) & ~collection.isin(_UNGROUPED) & model
    found = (kernel.str.endswith("min_latency") & (frame["top_k"] == 8)) | grouped
    return pd.Series(np.asarray(found, dtype=bool), index=frame.index)


def on_untuned_kernels(frame: "pd.DataFrame") -> "pd.Series[bool]":
    """Tell random rows of a shape, cut and ranks of which half the balanced rows are slow outliers.

    RANDOM takes the place of that quality where a load is random; the kernels are the same: where
    the balanced row is a slow outlier, the median random row takes 1.5 to 2.2 times as long as
    predicted.
    """
    import pandas as pd

    slow = (frame["quality"] == "slow_outlier").astype(float).where(frame["routing"] == 0)
    keys = [name for name in _KERNEL_CHOICE if name in frame]
    share = frame.assign(slow=slow).groupby(keys, dropna=False)["slow"].transform("mean")
    found = np.asarray(share >= _HALF) & np.asarray(frame["quality"] == RANDOM)
    return pd.Series(found, index=frame.index)


_HALF = 0.5
_KERNEL_CHOICE = (
    "hardware", "library", "version", "dtype", "kernel", "gated", "hidden_size", "expert_ffn_size",
    "top_k", "num_experts", "tp_size", "ep_size",
)  # fmt: skip
"""What kernels are chosen by, beside the number of tokens."""
