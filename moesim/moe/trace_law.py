"""Makes loads like those of a trace: a sampler set from its statistics, or the trace again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import CalibrationError, nearest
from moesim.moe import loads, trace_statistics
from moesim.moe.domains import Mixture
from moesim.moe.loads import Counts, LoadLaw, Shares, whole
from moesim.moe.traces import CountTable, Trace, counts_of

Phi = tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLaw:
    """What a sampler keeps of measured loads."""

    shares: Shares
    """[domains, layers, experts] as measured."""
    domains: tuple[str, ...]
    weights: tuple[float, ...]
    top_k: int
    phi: Phi
    """Burst factor per domain and layer; None where only counts were measured."""
    detail: str
    """How much of the shares a draw keeps, one of DETAILS."""


def shares(rows: Shares, generator: np.random.Generator) -> Shares:
    """Keep the share of every expert, with its label: same model, same kind of traffic."""
    del generator
    return rows


def profile(rows: Shares, generator: np.random.Generator) -> Shares:
    """Keep the sorted shares and deal them out to experts anew, alike in all domains.

    For a model of the same kind: how full the fullest expert is stays, which experts lie on one
    rank does not.
    """
    return np.asarray(rows[:, generator.permutation(rows.shape[1])])


def lognormal(rows: Shares, generator: np.random.Generator) -> Shares:
    """Keep the CV of each layer and domain, and draw lognormal shares that have it."""
    laws = [LoadLaw(law="lognormal", cv=cv) for cv in _cvs(rows)]
    return np.stack([loads.lognormal(law, rows.shape[1], generator) for law in laws])


def dirichlet(rows: Shares, generator: np.random.Generator) -> Shares:
    """Keep the CV of each layer and domain, and draw Dirichlet shares that have it."""
    laws = [LoadLaw(law="dirichlet", cv=cv) for cv in _cvs(rows)]
    return np.stack([loads.dirichlet(law, rows.shape[1], generator) for law in laws])


DETAILS: dict[str, Callable[[Shares, np.random.Generator], Shares]] = {
    "shares": shares,
    "profile": profile,
    "lognormal": lognormal,
    "dirichlet": dirichlet,
}
"""How much of the measured shares a draw keeps, by name in YAML; most first."""


def law_of(
    measured: Sequence[Trace | CountTable],
    detail: str = "shares",
    weights: Sequence[float] | None = None,
) -> TraceLaw:
    """Return the sampler's law set from traces or tables, a domain each, weighted equally.

    CalibrationError where they are not of one model: same layers, experts and choices.
    """
    if not measured:
        raise CalibrationError("a load law needs at least one trace or table")
    if detail not in DETAILS:
        raise CalibrationError(f"detail: one of {', '.join(DETAILS)}.{nearest(detail, DETAILS)}")
    tables = [_counts(one) for one in measured]
    sizes = {(*table.shape, _top_k(one)) for table, one in zip(tables, measured, strict=True)}
    if len(sizes) != 1:
        raise CalibrationError(
            f"traces of one law have the same layers, experts and choices, not {sorted(sizes)}"
        )
    if weights is not None and len(weights) != len(measured):
        raise CalibrationError(f"{len(weights)} weights for {len(measured)} domains")
    return TraceLaw(
        shares=np.stack([table / table.sum(axis=1, keepdims=True) for table in tables]),
        domains=tuple(one.domain for one in measured),
        weights=tuple(weights) if weights is not None else (1.0,) * len(measured),
        top_k=_top_k(measured[0]),
        phi=tuple(_phi(one) for one in measured),
        detail=detail,
    )


def mixture_of(
    law: TraceLaw,
    generators: Sequence[np.random.Generator],
    *,
    sequence_tokens: int = 1,
    in_order: bool = True,
) -> Mixture:
    """Return shares for every domain and layer, kept or drawn by the law's detail.

    `in_order` says that neighbours in a batch are neighbours in a text, as in prefill, so that
    the burst factor holds; the tokens of a decode batch are of different requests.
    """
    draw = DETAILS[law.detail]
    layers = [draw(law.shares[:, layer], generator) for layer, generator in enumerate(generators)]
    return Mixture(
        shares=np.stack(layers, axis=1),
        weights=law.weights,
        sequence_tokens=sequence_tokens,
        phi=law.phi if in_order else None,
    )


def replay(
    trace: Trace, tokens: int, generator: np.random.Generator, *, steps: int = 1
) -> NDArray[np.int16]:
    """Return ids[step, layer, token, choice]: consecutive windows from a sequence drawn at random.

    The trace starts over where it ends. Count them with traces.counts_in.
    """
    starts = np.concatenate(([0], np.cumsum(trace.sequences)[:-1]))
    first = int(starts[generator.integers(len(starts))])
    return _window(trace, (first + np.arange(steps * tokens)) % trace.ids.shape[1], steps)


def replay_decode(
    trace: Trace, tokens: int, generator: np.random.Generator, *, steps: int = 1
) -> NDArray[np.int16]:
    """Return ids[step, layer, token, choice] of a decode batch: each token of another request.

    Request r starts at a token drawn at random and moves on by one each step.
    """
    total = trace.ids.shape[1]
    first = generator.integers(total, size=tokens)
    places = (first[None, :] + np.arange(steps)[:, None]) % total
    return _window(trace, places.ravel(), steps)


def _window(trace: Trace, places: NDArray[np.int64], steps: int) -> NDArray[np.int16]:
    layers, _, top_k = trace.ids.shape
    found = trace.ids[:, places].reshape(layers, steps, -1, top_k)
    return np.ascontiguousarray(found.transpose(1, 0, 2, 3))


def replay_counts(table: CountTable, tokens: int) -> Counts:
    """Return a table's counts scaled to `tokens` tokens, whole numbers by largest remainder."""
    total = tokens * table.top_k
    exact = table.counts * (total / table.counts.sum(axis=1, keepdims=True))
    return np.stack([whole(row, total) for row in exact])


def _counts(measured: Trace | CountTable) -> Counts:
    return counts_of(measured) if isinstance(measured, Trace) else measured.counts


def _top_k(measured: Trace | CountTable) -> int:
    return int(measured.ids.shape[2]) if isinstance(measured, Trace) else measured.top_k


def _phi(measured: Trace | CountTable) -> tuple[float, ...] | None:
    if isinstance(measured, CountTable):
        return None
    return tuple(float(v) for v in trace_statistics.phi(measured))


def _cvs(rows: Shares) -> list[float]:
    return [float(row.std() / row.mean()) for row in rows]
