"""Links that transfers share: max-min fair rates, where the end of a flow is an event.

Amounts and capacities come as values from costs; a rate is an amount per picosecond.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Flow:
    """A transfer under way over some links."""

    links: tuple[int, ...]
    left: float
    """What is still to be sent as of `since`."""
    since: int = 0
    rate: float = 0.0
    version: int = 0
    """Counts changes of the rate, so that ends foreseen before are known to be stale."""

    def ends(self) -> int:
        """Return when all is sent, if the rate stays."""
        return self.since + math.ceil(self.left / self.rate)


@dataclass(slots=True)
class Links:
    """Links with what flows over them; flows that share none do not touch each other."""

    capacity: Sequence[float]
    """What each link carries per picosecond."""
    over: dict[int, dict[Flow, None]] = field(default_factory=dict)
    """Flows over each link, in the order in which they came."""

    def start(self, flow: Flow, at: int) -> list[Flow]:
        """Begin a flow; returns all whose rate changed."""
        flow.since = at
        for link in flow.links:
            self.over.setdefault(link, {})[flow] = None
        return self._share(flow.links, at)

    def stop(self, flow: Flow, at: int) -> list[Flow]:
        """End a flow, done or not; returns all others whose rate changed."""
        flow.version += 1
        for link in flow.links:
            del self.over[link][flow]
        return self._share(flow.links, at)

    def _share(self, links: Iterable[int], at: int) -> list[Flow]:
        """Set the rates of all flows that are joined to these links, directly or not."""
        flows, seen, found = dict[Flow, None](), set[int](), list(links)
        while found:
            link = found.pop()
            if link in seen:
                continue
            seen.add(link)
            for flow in self.over.get(link, ()):
                if flow not in flows:
                    flows[flow] = None
                    found += flow.links
        rates = max_min({flow: flow.links for flow in flows}, self.capacity)
        changed = []
        for flow, rate in rates.items():
            if rate != flow.rate:
                flow.left = max(0.0, flow.left - flow.rate * (at - flow.since))
                flow.since, flow.rate = at, rate
                flow.version += 1
                changed.append(flow)
        return changed


def max_min(flows: Mapping[Flow, Sequence[int]], capacity: Sequence[float]) -> dict[Flow, float]:
    """Return max-min fair rates: nobody can have more without taking from one who has less.

    Progressive filling: the link with the least per flow left fixes its flows, and so on
    (Bertsekas and Gallager, Data Networks, 1992, section 6.5.2).
    """
    users: dict[int, list[Flow]] = {}
    for flow, links in flows.items():
        for link in links:
            users.setdefault(link, []).append(flow)
    left = {link: capacity[link] for link in users}
    open_on = {link: len(some) for link, some in users.items()}
    rates: dict[Flow, float] = {}
    while len(rates) < len(flows):
        tight = min((link for link in users if open_on[link]), key=lambda k: left[k] / open_on[k])
        rate = left[tight] / open_on[tight]
        for flow in users[tight]:
            if flow in rates:
                continue
            rates[flow] = rate
            for link in flows[flow]:
                left[link] = max(0.0, left[link] - rate)
                open_on[link] -= 1
    return rates
