"""Experts that do not lie in device memory."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Spec
from moesim.spec.quantities import BytesPerS, FlopPerS, Fraction


class OffloadSpec(Spec):
    """Where the experts wait that do not fit, and how they are come by."""

    to: Literal["host", "nvme"] = "host"
    """host: the host's memory, over the device's host link; nvme: a drive, at `bandwidth`."""
    resident_experts: Annotated[int, Field(ge=0, le=100_000)]
    """Experts of each layer that lie in device memory, over all devices of a replica."""
    cache: Literal["static", "lru"] = "static"
    """static: always the same ones; lru: those used last."""
    bandwidth: BytesPerS | None = None
    """Rate at which one device gets experts; left out, that of its host link in its profile."""
    prefetch: Fraction = 0.0
    """Share of the missing experts that is guessed a layer ahead and fetched beside that layer."""
    compute: Literal["device", "host"] = "device"
    """Where missing experts are computed: fetched to the device, or on the host's processor."""
    host_compute: FlopPerS | None = None
    """What the host's processor reaches in matrix products."""
    host_bandwidth: BytesPerS | None = None
    """Rate of the host's memory, as its processor reaches it."""

    @model_validator(mode="after")
    def _check(self) -> "OffloadSpec":
        on_host = self.compute == "host"
        if self.to == "nvme" and self.bandwidth is None:
            raise ValueError("to nvme needs bandwidth, such as 7 GB/s")
        if self.to == "nvme" and on_host:
            raise ValueError("compute host needs the experts in its memory: to: host")
        for name in ("host_compute", "host_bandwidth"):
            if on_host != (getattr(self, name) is not None):
                raise ValueError(
                    f"compute {self.compute} {'needs' if on_host else 'has no'} {name}"
                )
        if on_host and self.prefetch:
            raise ValueError("prefetch has no effect with compute: host; leave one out")
        for name in ("bandwidth", "host_compute", "host_bandwidth"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be above 0")
        return self
