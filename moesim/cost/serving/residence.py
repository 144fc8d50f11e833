"""Which share of the experts lies in device memory, where the rest is offloaded."""

from moesim.cost.serving.deployment import Deployment
from moesim.model.architecture import MoeFfn, layers_of


def experts_of(on: Deployment) -> int:
    """Return the experts of a layer, the most of all layers; 0 in a dense model."""
    stacks = (on.architecture.encoder, on.architecture.decoder)
    ffns = [layer.ffn for stack in stacks for layer in layers_of(stack)]
    return max((ffn.num_experts for ffn in ffns if isinstance(ffn, MoeFfn)), default=0)


def resident_share(on: Deployment) -> float:
    """Return the share of all routed experts that devices hold; 1 without offload."""
    experts = experts_of(on)
    if on.offload is None or not experts:
        return 1.0
    return min(1.0, on.offload.resident_experts / experts)
