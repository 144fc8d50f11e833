"""Two or more passes beside each other on the streams of one device."""

from collections.abc import Sequence

from moesim.cost.times import Part


def side_by_side_s(passes: Sequence[Sequence[Part]]) -> float:
    """Return the seconds until all `passes` are done that share a compute and a network stream.

    Each pass does its parts in order; a stream does one part at a time. Whenever one can start, it
    starts; of two, that of the pass with more work left. So span >= busy time of either stream,
    and >= each pass alone. Nothing slows what runs beside it. Source: DeepSeek-V3, arXiv
    2412.19437, section 3.2.1 (a forward and a backward chunk hide each other's exchanges).
    """
    left = [sum(part.seconds for part in parts) for parts in passes]
    ready, following = [0.0] * len(passes), [0] * len(passes)
    free = {True: 0.0, False: 0.0}
    while any(at < len(parts) for at, parts in zip(following, passes, strict=True)):
        starts = [
            (max(ready[n], free[_computes(parts[following[n]])]), -left[n], n)
            for n, parts in enumerate(passes)
            if following[n] < len(parts)
        ]
        start, _, chosen = min(starts)
        part = passes[chosen][following[chosen]]
        ready[chosen] = free[_computes(part)] = start + part.seconds
        left[chosen] -= part.seconds
        following[chosen] += 1
    return max(ready, default=0.0)


def _computes(part: Part) -> bool:
    return part.stream == "compute"
