"""What a machine can do: accelerators and clusters, every figure with its source and kind."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Listed, Spec
from moesim.spec.quantities import (
    Bytes,
    BytesPerS,
    Count,
    FlopPerS,
    Seconds,
    UsdPerDeviceHour,
    Watts,
)
from moesim.spec.sourced import Figure

ScaleUpKind = Literal["switch", "mesh", "torus", "pcie"]
RingRule = Literal["own_axis", "every_axis"]
Fabric = Literal["infiniband", "roce", "efa", "slingshot", "ethernet"]

_Rate = Annotated[BytesPerS, Field(gt=0)]
_Size = Annotated[Bytes, Field(gt=0)]
_Peak = Annotated[FlopPerS, Field(gt=0)]
_Few = Annotated[int, Field(ge=1, le=4096)]
_Ratio = Annotated[float, Field(ge=1, le=1000)]
_Axes = Annotated[Listed[_Few], Field(min_length=1, max_length=6)]


class PeakSpec(Spec):
    """Peak rates of matrix products by number format, dense (no sparsity)."""

    fp32: Figure[_Peak] | None = None
    """32-bit floating point."""
    tf32: Figure[_Peak] | None = None
    """32-bit storage, 10-bit mantissa in the matrix unit (AMD: xf32)."""
    fp16: Figure[_Peak] | None = None
    """16-bit floating point."""
    bf16: Figure[_Peak] | None = None
    """bfloat16."""
    fp8: Figure[_Peak] | None = None
    """8-bit floating point."""
    int8: Figure[_Peak] | None = None
    """8-bit integers."""
    fp4: Figure[_Peak] | None = None
    """4-bit floating point."""
    nvfp4: Figure[_Peak] | None = None
    """4-bit floating point with one scale per 16 values, where the maker states it apart."""

    @model_validator(mode="after")
    def _not_empty(self) -> "PeakSpec":
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("give at least one number format, for example bf16")
        return self


class MemorySpec(Spec):
    """The memory of one device that holds weights, activations and caches."""

    capacity: Figure[_Size]
    """What the maker states, before the driver takes its part."""
    bandwidth: Figure[_Rate]
    """Peak rate between memory and chip."""


class AcceleratorSpec(Spec):
    """One device: a GPU, a TPU chip, an NPU."""

    name: str
    """The name that clusters and scenarios use; equal to the file name."""
    vendor: str
    """Who makes it, in lower case: nvidia, amd, google, huawei."""
    description: str
    """One sentence for reports."""
    peak: PeakSpec
    """Peak rates by number format."""
    memory: MemorySpec
    """Capacity and bandwidth of the device's memory."""
    compute_units: Figure[Count] | None = None
    """Independent cores that share a grid of tiles: SMs, CUs, matrix units of a TPU."""
    matrix_unit: Figure[_Few] | None = None
    """Edge of a systolic matrix unit, 128 for 128 x 128 cells: products fill whole ones. Left out,
    products are cut into tiles for `compute_units`."""
    l2: Figure[_Size] | None = None
    """Last cache that all compute units share."""
    tdp: Figure[Watts] | None = None
    """Board power limit."""
    price: Figure[UsdPerDeviceHour] | None = None
    """What one device costs per hour."""
    host_link: Figure[_Rate] | None = None
    """Rate between host and device, one direction."""


class TorusSpec(Spec):
    """How a torus network closes; the slice of a run is chosen from its device count."""

    shape: Figure[_Axes]
    """Axis lengths of the largest slice, for example [16, 16, 16]."""
    ring_multiple: Figure[_Few]
    """An axis whose length is a multiple of this has wrap-around links."""
    rings: RingRule
    """own_axis: each axis closes for itself; every_axis: none closes unless all can."""


class ScaleUpSpec(Spec):
    """The fast network of one domain: a node, a rack or a pod."""

    kind: ScaleUpKind
    """switch (any pair at full rate), mesh (a link per pair), torus, or pcie (through a tree)."""
    domain: Figure[Count]
    """Devices that one domain connects."""
    bandwidth: Figure[_Rate]
    """Per device, one direction, all its links together."""
    latency: Figure[Seconds]
    """What one more step from device to device adds; the launch of a kernel is not in it."""
    torus: TorusSpec | None = None
    """Only for kind torus."""

    @model_validator(mode="after")
    def _torus_matches(self) -> "ScaleUpSpec":
        if (self.torus is not None) != (self.kind == "torus"):
            raise ValueError("kind torus needs the key torus, and no other kind may have it")
        if self.torus is None:
            return self
        shape = self.torus.shape.value
        if math.prod(shape) != self.domain.value:
            product = " x ".join(str(axis) for axis in shape)
            raise ValueError(
                f"domain is {self.domain.value}, but torus.shape has {product} = "
                f"{math.prod(shape)} devices"
            )
        return self


class ScaleOutSpec(Spec):
    """The network between domains."""

    fabric: Figure[Fabric]
    """infiniband, roce (RDMA over Ethernet), efa (Amazon), slingshot, or ethernet (anything else,
    TCP included); measured curves of one fabric stand for no other."""
    nic_bandwidth: Figure[_Rate]
    """One network card, one direction; a device's share is this times cards over devices."""
    nics_per_node: Figure[_Few]
    """Network cards of a node that carry traffic of the devices."""
    latency: Figure[Seconds]
    """What one more step between nodes adds; the launch of a kernel is not in it."""
    oversubscription: Figure[_Ratio] | None = None
    """Rate into the leaves over rate into the spine; 1 is full bisection."""
    leaf_devices: Figure[Count] | None = None
    """Devices below one leaf (pod): their traffic among each other is not oversubscribed."""
    rails: Figure[_Few] | None = None
    """Leaf switches of a pod that each serve the same-numbered cards of its nodes."""

    @model_validator(mode="after")
    def _leaf_is_whole(self) -> "ScaleOutSpec":
        if (self.oversubscription is None) != (self.leaf_devices is None):
            raise ValueError("oversubscription and leaf_devices need each other; give both or none")
        if self.rails is not None and self.oversubscription is None:
            raise ValueError("rails say which traffic avoids the spine; give oversubscription too")
        return self


class ClusterSpec(Spec):
    """Machines of one kind and the networks between their devices."""

    name: str
    """The name that scenarios use; equal to the file name."""
    description: str
    """One sentence for reports."""
    accelerator: str
    """Name of the accelerator profile, or path of one."""
    devices_per_node: Figure[_Few]
    """Devices under one host."""
    scale_up: ScaleUpSpec
    """NVLink, xGMI, ICI or PCIe."""
    scale_out: ScaleOutSpec | None = None
    """InfiniBand, Ethernet or data-centre network; left out where one domain is all there is."""
    max_devices: Figure[Count] | None = None
    """The largest number of devices that exists or can be rented together."""

    @model_validator(mode="after")
    def _nodes_fill_domains(self) -> "ClusterSpec":
        domain, node = self.scale_up.domain.value, self.devices_per_node.value
        if domain % node and node % domain:
            raise ValueError(
                f"scale_up.domain is {domain} and devices_per_node is {node}: "
                "one must be a multiple of the other"
            )
        if self.scale_out is None:
            return self
        _check_leaf(self.scale_out, node)
        return self


def _check_leaf(out: ScaleOutSpec, node: int) -> None:
    if out.leaf_devices is not None and out.leaf_devices.value % node:
        raise ValueError(f"scale_out.leaf_devices must be a multiple of devices_per_node ({node})")
    if out.rails is not None and node % out.rails.value:
        raise ValueError(f"scale_out.rails must divide devices_per_node ({node})")
