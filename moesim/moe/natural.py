"""How unevenly finished models load their experts, where nothing else is known."""

import math

FEW_EXPERTS, MANY_EXPERTS = (8, 0.10), (64, 0.48)
"""Experts, and the CV of their load in finished models on an equal mix of domains: Mixtral-8x7B
0.100; the mean of OLMoE-1B-7B 0.452 and DeepSeek-V2-Lite 0.510 (routing data of allenai/OLMoE
@357454f4 and deepseek-ai/ESFT @579a7711)."""


def natural_cv(experts: int) -> float:
    """Return the spread of a trained router's load: as measured, linear in log experts between."""
    (few, low), (many, high) = FEW_EXPERTS, MANY_EXPERTS
    part = (math.log(max(1, experts)) - math.log(few)) / (math.log(many) - math.log(few))
    return low + (high - low) * min(1.0, max(0.0, part))
