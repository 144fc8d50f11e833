"""What the optimizer keeps per parameter, and how long an update takes."""

from dataclasses import dataclass

from moesim.cost.fitted_kernels import fused_update
from moesim.cost.layout import Layout
from moesim.cost.parameters import StageParams
from moesim.cost.software import Software
from moesim.hardware.device import Device, host_link_bytes_per_s

_HAS_MOMENTS = {"adam": True, "adafactor": False, "sgd": False}
"""Whether there are two moments per parameter. Adafactor keeps row and column averages only (arXiv
1804.04235, section 4), thousandths of a byte."""

_MOMENT_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0 + 4.0 / 2048}
"""Of one moment, with its scales: fp8 one per tensor (Megatron-LM --exp-avg-dtype fp8), int8 one in
fp32 per 2048 values (8-bit optimizers, arXiv 2110.02861, section 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRule:
    """Bytes per parameter of weights, gradients, master weights and moments."""

    kind: str
    distributed: bool
    offload: float
    """Share of the moments in the host's memory."""
    weight_bytes: float
    gradient_bytes: float
    master_bytes: float
    moment_bytes: float
    """Of all moments of a parameter."""

    @property
    def gathered_bytes(self) -> float:
        """Bytes per updated weight that travel; an fp8 copy is made from bf16 on arrival."""
        return min(self.weight_bytes, 2.0) if self.master_bytes else self.weight_bytes

    @property
    def state_bytes(self) -> float:
        """Master weights and moments, per parameter."""
        return self.master_bytes + self.moment_bytes


def optimizer_rule(
    kind: str,
    precision: str,
    gradient_dtype: str,
    *,
    distributed: bool,
    offload: float = 0.0,
    moment_dtypes: tuple[str, str] = ("fp32", "fp32"),
) -> OptimizerRule:
    """Return the bytes per parameter of mixed-precision training.

    18 bytes with Adam and fp32 gradients, 6 of them in place and 12 to spread: Megatron-LM
    theoretical_memory_usage.py @d98e8a64. fp8 training keeps bf16 weights and an fp8 copy;
    tf32 is a way to multiply fp32 weights.
    """
    weight = {"fp32": 4.0, "tf32": 4.0, "fp8": 3.0}.get(precision, 2.0)
    return OptimizerRule(
        kind=kind,
        distributed=distributed,
        offload=offload,
        weight_bytes=weight,
        gradient_bytes={"fp32": 4.0, "bf16": 2.0}[gradient_dtype],
        master_bytes=0.0 if precision in ("fp32", "tf32") else 4.0,
        moment_bytes=sum(_MOMENT_BYTES[one] for one in moment_dtypes) if _HAS_MOMENTS[kind] else 0,
    )


def owned_params(params: StageParams, rule: OptimizerRule, layout: Layout) -> float:
    """Return the parameters that one rank updates."""
    if layout.fsdp:
        return sharded_params(params, layout)
    if not rule.distributed:
        return params.total
    spread = params.dense / (layout.dp * layout.cp) + params.routed_experts / layout.edp
    return spread / layout.copies


def sharded_params(params: StageParams, layout: Layout) -> float:
    """Return the parameters that stay with one rank between layers; all without full sharding."""
    return params.dense / layout.dense_shards + params.routed_experts / layout.expert_shards


def state_bytes(params: StageParams, rule: OptimizerRule, layout: Layout) -> float:
    """Return the bytes of master weights and moments in a rank's device memory.

    Of an offloaded share the moments leave the device, 8 of 12 bytes with Adam: its master weights
    stay, the host updates a copy of them. Source: Megatron-LM
    core/optimizer/cpu_offloading/hybrid_optimizer.py (from memory, unchecked); Qwen3-30B-A3B on 16
    H100 gives back 3.8 GB for each quarter, of 5.7 GB of states with 3.8 GB of moments
    (NVIDIA-NeMo/Megatron-Bridge, skills/nemo-mbridge-perf-cpu-offloading @067f987d).
    """
    kept = rule.master_bytes + (1 - rule.offload) * (rule.state_bytes - rule.master_bytes)
    return kept * owned_params(params, rule, layout)


def norm_s(
    params: StageParams, rule: OptimizerRule, layout: Layout, device: Device, software: Software
) -> float:
    """Return the seconds of the gradients' norm, for clipping: a rank's own gradients read once.

    What the sum over all ranks takes is in the stage's cost. Gradients are scaled only where the
    norm exceeds the limit, which steady training does not.
    Source: Megatron-LM core/optimizer/clip_grads.py, `get_grad_norm_fp32`.
    """
    read = owned_params(params, rule, layout) * rule.gradient_bytes
    rate = device.memory_bandwidth_bytes_per_s * software.memory_fraction
    return read / rate + software.kernel_launch_s


def update_s(
    params: StageParams, rule: OptimizerRule, layout: Layout, device: Device, software: Software
) -> float:
    """Return the seconds of an update: states read and written, gradient read, weight written.

    Offloaded, gradients go to the host and weights come back over the host link; what the host
    computes meanwhile is not modelled. With a share x offloaded the device updates 1 - x of the
    weights, then x of them cross the link; that one follows the other is assumed.
    """
    owned = owned_params(params, rule, layout)
    moved = rule.gradient_bytes + rule.weight_bytes
    seconds = 0.0
    if rule.offload > 0:
        crossing = rule.offload * owned * moved
        seconds = crossing / host_link_bytes_per_s(device) + software.kernel_launch_s
    if rule.offload < 1:
        streamed = (1 - rule.offload) * owned * (2 * rule.state_bytes + moved)
        seconds += _on_device_s(streamed, device, software)
    return seconds


def _on_device_s(streamed: float, device: Device, software: Software) -> float:
    """Return the seconds in which the device reads and writes `streamed` bytes of an update."""
    known = fused_update(streamed, software.kernels) if software.kernels is not None else None
    if known is not None:
        return known.seconds
    rate = device.memory_bandwidth_bytes_per_s * software.memory_fraction
    return streamed / rate + software.kernel_launch_s
