"""What an optimizer step of Megatron-LM 2021 to 2023 reads and writes beyond the fused update.

In fp16 each parameter that a rank updates is passed over several times: its gradient copied to fp32
(2 read, 4 written), unscaled and checked for overflow (4, 4); the norm and the update read that
fp32 gradient instead of the 16-bit one (2 more each); the updated master weight is read again to
write the 16-bit weight (4); the gradient buffer is zeroed (2). 24 bytes in all; with fp32 gradients
only master weight and buffer are left, 4 + 4.
Source: Megatron-LM megatron/optimizer/optimizer.py, `Float16OptimizerWithFloat16Params`
(`_copy_model_grads_to_main_grads`, `_unscale_main_grads_and_check_for_nan`,
`_copy_main_params_to_model_params`), from memory, unchecked.
"""

from moesim.cost.layout import Layout
from moesim.cost.optimizer import OptimizerRule, owned_params
from moesim.cost.parameters import StageParams
from moesim.cost.software import Software
from moesim.hardware.device import Device
from moesim.model.fusions import Fusions

_SIXTEEN_BIT = (2 + 4) + (4 + 4) + 2 + 2 + 4 + 2
_FP32 = 4 + 4
_LAUNCHES = {True: 4, False: 2}
"""Kernels of these passes, with 16-bit gradients and without."""

_GRADIENT = 4.0
"""Bytes of a gradient in fp32."""


def further_passes_s(
    fusions: Fusions, params: StageParams, rule: OptimizerRule, *,
    layout: Layout, device: Device, software: Software,
) -> float:  # fmt: skip
    """Return the seconds of the passes beside norm and update; 0 where the code has none."""
    if fusions != "megatron_2021":
        return 0.0
    narrow = rule.gradient_bytes < _GRADIENT and bool(rule.master_bytes)
    passed = owned_params(params, rule, layout) * (_SIXTEEN_BIT if narrow else _FP32)
    rate = device.memory_bandwidth_bytes_per_s * software.memory_fraction
    return passed / rate + _LAUNCHES[narrow] * software.kernel_launch_s
