"""What the profile says about a trial: its operators, as moesim counts them, priced by the curves.

Norms, activations and permutations are priced by what torch's own passes for them took. A call
costs the host time too: on a GPU a phase lasts as long as the longer of both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moesim.calibrate.device import Target
from moesim.calibrate.fit import Fitted, predict_one
from moesim.calibrate.suite import Case, case
from moesim.calibrate.verify.plan import Small, Trial, architecture
from moesim.model.architecture import MoeFfn, layers_of
from moesim.model.backward import backward
from moesim.model.layers import embedding_operators, layer_operators, logits_operators
from moesim.model.operators import (
    DTYPE_BYTES,
    AttentionCore,
    Exchange,
    Gemm,
    GroupedGemm,
    Operator,
    Pointwise,
)
from moesim.model.shapes import Shape, Shard
from moesim.moe.capacity import megatron
from moesim.moe.drops import uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What the profile says about a trial."""

    seconds: float
    by_piece: dict[str, float]
    """Seconds of each operator and variant."""
    dropped_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A trial with what its cases depend on."""

    trial: Trial
    ranks: int
    in_one_call: bool
    dropped: float

    @property
    def small(self) -> Small:
        """The model."""
        return self.trial.model

    @property
    def kept(self) -> float:
        """Rows that reach experts from one rank, per layer."""
        return self.trial.tokens * self.small.top_k * (1 - self.dropped)

    @property
    def active(self) -> float:
        """Experts with rows on one rank, on average: E (1 - (1 - k/E)^T) of all."""
        small, tokens = self.small, self.trial.tokens * self.ranks
        chosen = 1 - (1 - small.top_k / small.num_experts) ** tokens
        return small.num_experts / self.ranks * chosen


def dropped_share(trial: Trial) -> float:
    """Return the share of choices beyond capacity when tokens choose uniformly."""
    small = trial.model
    if not small.capacity_factor:
        return 0.0
    slots = megatron(trial.tokens, small.num_experts, small.top_k, small.capacity_factor)
    return uniform(trial.tokens, small.num_experts, small.top_k, slots)


def predict(fitted: Fitted, trial: Trial, target: Target, *, in_one_call: bool) -> Predicted:
    """Return the predicted time of a trial."""
    setting = Setting(
        trial=trial, ranks=target.processes, in_one_call=in_one_call, dropped=dropped_share(trial)
    )
    by_piece: dict[str, float] = {}
    seconds = 0.0
    for phase in phases(setting, target):
        device, host = 0.0, 0.0
        for one in phase:
            taken = predict_one(fitted, one)
            device += taken
            host += fitted.host_s.get((one.operator, one.variant), 0.0)
            name = f"{one.operator} {one.variant}".strip()
            by_piece[name] = by_piece.get(name, 0.0) + taken
        seconds += max(device, host)
    return Predicted(seconds=seconds, by_piece=by_piece, dropped_fraction=setting.dropped)


def phases(setting: Setting, target: Target) -> Iterator[list[Case]]:
    """Yield the cases of forward, backward and update; only the first where nothing is trained."""
    forward = forward_operators(setting)
    yield [one for operator in forward for one in cases(operator, setting)]
    if setting.trial.phase != "train":
        return
    back = [part for operator in reversed(forward) for part in _backward(operator)]
    yield [one for operator in back for one in cases(operator, setting)]
    yield list(_update(setting, target))


Torch = tuple[str, int]
"""What torch does besides moesim's operators, by name, and how many rows it has."""

Work = Operator | Torch


def _backward(work: Work) -> Iterable[Work]:
    if isinstance(work, tuple):
        return () if work[0] == "assign" else ((f"{work[0]}_grad", work[1]),)
    return backward(work)


def forward_operators(setting: Setting) -> list[Work]:
    """Return the forward pass: moesim's operators, and torch's bookkeeping for the router."""
    trial, small = setting.trial, setting.small
    model = architecture(small)
    length = 1 if trial.phase == "decode" else trial.length
    shape = Shape(sequences=trial.sequences, length=length)
    shard = Shard(dtype=trial.dtype, ep=setting.ranks)
    found: list[Work] = [*embedding_operators(small.hidden, shape, shard)]
    for layer in layers_of(model.decoder):
        rows: tuple[int, ...] = ()
        copies = None
        if isinstance(layer.ffn, MoeFfn):
            rows = _even_rows(setting)
            copies = setting.kept / trial.tokens
        for operator in layer_operators(
            layer, small.hidden, shape, shard, rows=rows, copies=copies
        ):
            found.append(operator)
            if operator.name == "router":
                found += [("gate", trial.tokens), ("assign", trial.tokens)]
    ends = shape if trial.phase == "train" else Shape(sequences=trial.sequences, length=1)
    last = logits_operators(model, ends, shard)
    return found + (list(last) if trial.phase == "train" else list(last[:-1]))


def _even_rows(setting: Setting) -> tuple[int, ...]:
    active = max(1, round(setting.active))
    rows = round(setting.kept)
    return tuple(rows // active + (e < rows % active) for e in range(active))


def cases(work: Work, setting: Setting) -> list[Case]:
    """Return what torch runs for an operator, as cases that the suite knows."""
    dtype, small = setting.trial.dtype, setting.small
    if isinstance(work, tuple):
        name, rows = work
        sizes = {"rows": rows, "width": small.num_experts, "top_k": small.top_k}
        return [case("elementwise", name, dtype, **sizes)]
    match work:
        case Gemm():
            return [case("gemm", "", dtype, m=work.m, n=work.n, k=work.k)]
        case GroupedGemm():
            return _grouped(work, setting)
        case AttentionCore():
            return [_attention(work, setting)]
        case Exchange():
            return _exchange(work, setting)
        case Pointwise():
            return _pointwise(work, setting)
        case _:
            return []


def _grouped(work: GroupedGemm, setting: Setting) -> list[Case]:
    dtype, experts, rows = setting.trial.dtype, len(work.rows), sum(work.rows)
    if work.accumulates and not setting.in_one_call:
        return [case("gemm", "", dtype, m=work.k, n=work.n, k=each) for each in work.rows if each]
    variant = "grouped_mm" if setting.in_one_call else "loop"
    if work.accumulates:
        variant = "wgrad"
    sizes = {"experts": experts, "rows": rows, "n": work.n, "k": work.k}
    return [case("grouped_gemm", variant, dtype, **sizes)]


def _attention(work: AttentionCore, setting: Setting) -> Case:
    trial = setting.trial
    variant = "decode" if trial.phase == "decode" else "prefill"
    if work.qk_products > 1:
        variant = "prefill_grad"
    return case(
        "attention", variant, trial.dtype, sequences=trial.sequences, length=trial.length,
        heads=work.heads, kv_heads=work.kv_heads, head_dim=work.qk_dim,
    )  # fmt: skip


def _exchange(work: Exchange, setting: Setting) -> list[Case]:
    if setting.ranks == 1:
        return []
    dtype = setting.trial.dtype
    payload = work.tokens * work.copies * work.hidden * DTYPE_BYTES[dtype]
    rows = _collective("all_to_all", payload, setting)
    if work.name != "dispatch":
        return [rows]
    counts = _collective("all_to_all", 8.0 * setting.small.num_experts, setting)
    local = setting.small.num_experts // setting.ranks
    sort = case("elementwise", "assign", dtype, rows=setting.kept, width=local, top_k=1)
    return [counts, rows, sort]


def _collective(variant: str, payload: float, setting: Setting) -> Case:
    sizes = {"ranks": setting.ranks, "payload": payload, "skew": 1.0}
    return case("collective", variant, setting.trial.dtype, **sizes)


_PIECES = {
    "attention_norm": "norm", "ffn_norm": "norm", "final_norm": "norm", "rope": "rope",
    "ffn_activation": "activation", "expert_activation": "activation", "embedding": "embedding",
    "cross_entropy": "cross_entropy", "permute": "permute", "unpermute": "unpermute",
    "sort_by_expert": "permute", "sort_by_source": "permute",
}  # fmt: skip
"""Which of the suite's pieces an operator of moesim is in torch."""


def _pointwise(work: Pointwise, setting: Setting) -> list[Case]:
    trial, small = setting.trial, setting.small
    grad = "_grad" if work.name.endswith("_grad") else ""
    name = work.name.removesuffix("_grad")
    piece = _PIECES[name]
    variant = piece + grad
    tokens = trial.sequences if _is_last(name, trial) else trial.tokens
    rows, width = float(tokens), float(small.hidden)
    sizes = {"rows": rows, "width": width}
    match name:
        case "rope":
            heads = {"heads": small.heads, "kv_heads": small.kv_heads, "head_dim": small.head_dim}
            found = [case("elementwise", variant, trial.dtype, rows=rows, **heads)]
            return found + (_cache(setting) if trial.phase == "decode" else [])
        case "ffn_activation":
            sizes["width"] = small.width
        case "expert_activation":
            sizes = {"rows": setting.kept, "width": small.width}
        case "embedding" | "cross_entropy":
            sizes["vocab" if piece == "embedding" else "width"] = small.vocab
        case "permute" | "unpermute":
            sizes["top_k"] = setting.kept / rows
        case "sort_by_expert" | "sort_by_source":
            if setting.ranks == 1:  # torch has sorted by expert already
                return []
            sizes = {"rows": setting.kept, "width": width, "top_k": 1.0}
    return [case("elementwise", variant, trial.dtype, **sizes)]


def _is_last(name: str, trial: Trial) -> bool:
    return trial.phase == "prefill" and name == "final_norm"


def _cache(setting: Setting) -> list[Case]:
    small, trial = setting.small, setting.trial
    sizes = {"rows": trial.sequences, "width": small.kv_heads * small.head_dim}
    return [case("elementwise", "cache", trial.dtype, **sizes)] * 2


def shared_params(small: Small) -> float:
    """Return the parameters that every rank has."""
    heads = (small.heads + 2 * small.kv_heads) * small.head_dim
    attention = small.hidden * (heads + small.heads * small.head_dim + 2)
    ffn = small.num_experts * small.hidden or 3 * small.hidden * small.width
    return small.layers * (attention + ffn) + (2 * small.vocab + 1) * small.hidden


def own_params(small: Small, ranks: int) -> float:
    """Return the parameters of one rank's experts."""
    return small.layers * small.num_experts // ranks * 3 * small.hidden * small.width


def _update(setting: Setting, target: Target) -> Iterator[Case]:
    small, dtype = setting.small, setting.trial.dtype
    shared, own = shared_params(small), own_params(small, setting.ranks)
    if setting.ranks > 1:
        size = shared * DTYPE_BYTES[dtype]
        yield from [case("elementwise", "copy", dtype, bytes=size)] * 2
        yield _collective("all_reduce", size, setting)
    variant = "adamw_foreach" if target.kind == "mps" else "adamw_fused"
    tensors = 3 + small.layers * (7 if small.num_experts else 6)
    yield case("elementwise", variant, dtype, params=shared + own, tensors=tensors)
