"""A software profile: what an engine or trainer adds to the hardware, every figure sourced."""

from moesim.spec.base import Listed, Spec
from moesim.spec.quantities import Bytes, Efficiency, Fraction, Seconds
from moesim.spec.sourced import Figure


class EfficiencySpec(Spec):
    """Shares of the datasheet peak that kernels reach."""

    gemm: Figure[Efficiency]
    """Matrix products, of peak FLOP/s."""
    grouped_gemm: Figure[Efficiency]
    """Expert matrix products, of peak FLOP/s."""
    attention: Figure[Efficiency]
    """Fused attention, of peak FLOP/s."""
    memory: Figure[Efficiency]
    """Kernels bound by memory, of its bandwidth."""
    scale_up: Figure[Efficiency]
    """Collectives inside the scale-up domain, of the link's bandwidth."""
    scale_out: Figure[Efficiency]
    """Collectives between domains, of the network's bandwidth."""
    overlapped: Figure[Efficiency]
    """Rate of communication that runs beside compute, of its rate alone."""


class KernelChoice(Spec):
    """Whose measured kernels stand for this software's, the first that has a profile counts.

    A library by its name (trtllm, nccl, …), or the path of a kernel profile such as
    `moesim calibrate` writes.
    """

    gemm: Listed[str] = ()
    """Matrix products."""
    grouped_gemm: Listed[str] = ()
    """Expert matrix products."""
    attention: Listed[str] = ()
    """Fused attention."""
    elementwise: Listed[str] = ()
    """Norms, activations, permutations and what else is bound by memory."""
    collectives: Listed[str] = ()
    """Collectives inside a scale-up domain and between domains."""
    exchange: Listed[str] = ()
    """Dispatch and combine by kernels made for it (DeepEP)."""
    reason: str
    """Why these kernels stand for the software's own."""


class SoftwareSpec(Spec):
    """A trainer or engine, by name and version."""

    name: str
    """Name of the software and, where it matters, its version."""
    description: str = ""
    """What it stands for."""
    efficiency: EfficiencySpec
    """Shares of the datasheet peak that its kernels reach."""
    kernels: KernelChoice | None = None
    """Measured kernels, which come before the efficiencies; left out, those stand alone."""
    kernel_launch: Figure[Seconds]
    """Time a kernel takes at least."""
    host_per_kernel: Figure[Seconds] | None = None
    """Time the host needs from one launch to the next; left out, it always runs ahead."""
    host_sync: Figure[Seconds] | None = None
    """Time a layer of dropless experts stops for, while the host waits for the rows of each."""
    host_per_iteration: Figure[Seconds] | None = None
    """Time that an engine's host adds to each iteration; left out, none."""
    host_per_sequence: Figure[Seconds] | None = None
    """Time that an engine's host needs for each sequence of an iteration; left out, none."""
    host_per_request: Figure[Seconds] | None = None
    """Time of a request beside the engine: tokenising, and the way to the client; left out, none.
    """
    reserved_memory: Figure[Bytes]
    """Device memory taken by the driver context, the framework and communication buffers."""
    fragmentation: Figure[Fraction]
    """Share of the activations lost to allocator fragmentation."""
