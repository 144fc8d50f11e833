"""What an engine's host adds: to iterations, and to requests on their way in and out."""

import numpy as np

from moesim.cost.serving.table import HostTime
from moesim.cost.software import Software
from moesim.sim.serving.requests import Requests, ps


def host_time(software: Software) -> HostTime:
    """Return the host times of an engine, from its software profile."""
    return HostTime(
        iteration_s=software.host_per_iteration_s,
        sequence_s=software.host_per_sequence_s,
        request_s=software.host_per_request_s,
    )


def as_clients_see(asked: Requests, host: HostTime) -> None:
    """Let all requests have left their clients so much earlier than they reached the engine.

    The same for each, so that what the engine does stays as it is; a closed loop then has slightly
    more in flight than was asked for, by request_s over the time of a request.
    """
    np.frombuffer(asked.arrival, dtype=np.int64)[:] -= ps(host.request_s)
