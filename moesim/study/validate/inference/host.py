"""Host times of an engine, from its software profile."""

from moesim.cost.serving.table import HostTime
from moesim.cost.software import Software


def host_of(software: Software) -> HostTime:
    """Return what the host of an engine adds to an iteration."""
    del software
    return HostTime()
