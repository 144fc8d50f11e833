"""What a step does to whole buffers of gradients besides summing and reducing them.

Gradients that micro-batches are added to lie in buffers of the size of all weights of a rank. Once
a step each buffer is filled with zeros, divided by the number of replicas, and checked for values
that are no numbers; behind the update the fp32 weights are read again to make the 16-bit ones:

  t = (P g (1 + 2 [replicas > 1] + 1) + O w) / (memory bandwidth e_memory) + launches

with P weights on a rank, g bytes of a gradient, O weights that the rank updates, w bytes of a
master weight. Sources, from memory and not checked line by line: Megatron-LM core/distributed/
param_and_grad_buffer.py (`reset`: grad_data.zero_(); `start_grad_sync`: grad_data *=
gradient_scaling_factor where it is not 1; `check_grads`: grad_data.norm, on by default) and
core/optimizer/distrib_optimizer.py (`_copy_main_params_to_model_params`). Valid for trainers that
sum gradients on a rank; fully sharded ones free them instead.
"""

from moesim.cost.layout import Layout
from moesim.cost.optimizer import OptimizerRule, owned_params
from moesim.cost.parameters import StageParams
from moesim.cost.software import Software
from moesim.hardware.device import Device

_ZEROED, _SCALED, _CHECKED = 1.0, 2.0, 1.0
"""Passes over a buffer: written; read and written; read."""


def buffer_passes_s(
    params: StageParams, rule: OptimizerRule, layout: Layout, device: Device, software: Software
) -> float:
    """Return the seconds of zeroing, scaling and checking gradients and of copying new weights."""
    scaled = layout.dp * layout.cp > 1
    passes = _ZEROED + _CHECKED + (_SCALED if scaled else 0.0)
    moved = params.total * rule.gradient_bytes * passes
    moved += (1 - rule.offload) * owned_params(params, rule, layout) * rule.master_bytes
    kernels = 3 + scaled
    rate = device.memory_bandwidth_bytes_per_s * software.memory_fraction
    return moved / rate + kernels * software.kernel_launch_s
