"""How much the weights take where experts are stored in other bits than the rest, or are left out.

Quantised experts: QMoE (arXiv 2310.16795), MXFP4. Left out: experts that a language never uses.
"""

from dataclasses import dataclass
from math import ceil

from moesim.model.architecture import Architecture, MoeFfn, Run
from moesim.model.parameters import expert_params, routed_expert_params, total_params


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBits:
    """Bits per parameter, scales and indices of the format included."""

    experts: float = 16.0
    others: float = 16.0


TERNARY_QMOE = WeightBits(experts=16 / 20.07)
"""Switch-C's: a rate of 20.07 against bf16 (QMoE, Table 6; smaller models compress less)."""
MXFP4_EXPERTS = WeightBits(experts=4.25)
"""Four bits and a scale of eight bits for 32 weights (OCP Microscaling Formats, v1.0)."""


def weight_bytes(
    architecture: Architecture, bits: WeightBits, *, kept_experts: int | None = None
) -> float:
    """Return (experts * bits + others * bits) / 8.

    `kept_experts` of all routed experts, counted over all layers, stay; None: all of them.
    """
    routed = float(routed_expert_params(architecture))
    others = total_params(architecture) - routed
    if kept_experts is not None:
        held = routed_experts(architecture)
        if not 0 <= kept_experts <= held:
            raise ValueError(f"between 0 and {held} experts can stay, not {kept_experts}")
        routed *= kept_experts / held if held else 1.0
    return (routed * bits.experts + others * bits.others) / 8


def routed_experts(architecture: Architecture) -> int:
    """Return the routed experts of all layers together; they must be of one size."""
    runs = _moe_runs(architecture)
    if len({expert_params(ffn, architecture.hidden) for _, ffn in runs}) > 1:
        raise ValueError("experts of several sizes")
    return sum(run.count * ffn.num_experts for run, ffn in runs)


def compression_rate(architecture: Architecture, bits: WeightBits) -> float:
    """Return the bytes in 16 bits over those in the given bits."""
    return weight_bytes(architecture, WeightBits()) / weight_bytes(architecture, bits)


def devices_needed(weights_bytes: float, device_bytes: float) -> int:
    """Return how many devices hold the weights alone: no activations, no cache."""
    return ceil(weights_bytes / device_bytes)


def _moe_runs(architecture: Architecture) -> list[tuple[Run, MoeFfn]]:
    runs = (*architecture.encoder, *architecture.decoder)
    return [(run, run.layer.ffn) for run in runs if isinstance(run.layer.ffn, MoeFfn)]
