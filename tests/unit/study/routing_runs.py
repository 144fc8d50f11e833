"""Scenarios of one MoE block that the tests of routing share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moesim.spec.load import load_scenario
from moesim.spec.scenario import Scenario

TOKENS = 4 * 2 * 512
"""Of a micro-batch on all four ranks."""


def scenario(
    folder: Path, routing: Mapping[str, Any], model: str = "mixtral-8x7b", **training: Any
) -> Scenario:
    """Return a run on eight devices with four expert-parallel ranks, two sequences on each."""
    sizes = {"sequence_length": 512, "global_batch": 16, "micro_batch": 2, **training}
    text = {
        "model": model,
        "cluster": {"profile": "dgx-h100", "devices": 8},
        "parallel": {"ep": 4, "etp": 1},
        "training": sizes,
        "routing": routing,
    }
    path = folder / "mine.yaml"
    path.write_text(json.dumps(text), encoding="utf-8")
    return load_scenario(path)
