"""Peak bytes of one MoE layer alone, forward and backward, tensor by tensor.

No optimizer: weights in the type of the activations, their gradients made anew in each backward
pass. The peak is the largest of three moments.

- Forward, before the combine. Besides what is kept, what Python still has names for: the rows sent
  and received, the sorted rows where an fp8 copy of them is kept, the experts' output, and that
  output in the order of its sources.
- Backward at the activation. Its inputs are kept, those of the last product are not any more. The
  gradient of its output, and that of its input twice: in fp32, the type of the router's
  probabilities that weigh it, and cast.
- Backward at the first product: its gradients, and those of all weights.

Rows: an all-to-all sends and receives one for each choice; DeepEP one for each rank that a token
reaches; HybridEP permutes while it dispatches; an all-gather has every token. fp8: two copies of
each weight with scales (4 bytes for 128), one for either direction of the product.

Source: Megatron-LM core/transformer/moe/moe_layer.py (names that live through the forward pass),
core/fusions/fused_bias_swiglu.py (weighted SwiGLU in the type of the probabilities), Transformer
Engine pytorch/module/grouped_linear.py (copies of weights): from memory, unchecked. Which tensors
live at once is PyTorch's rule: a tensor is freed when nothing names or keeps it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moesim.cost.parameters import stage_params
from moesim.cost.pipeline import chunks
from moesim.cost.recomputation import kept_bytes, recomputed_modules
from moesim.cost.work import Block
from moesim.model.architecture import MoeFfn
from moesim.model.operators import Exchange, GroupedGemm, Pointwise, saved_bytes
from moesim.model.parameters import router_params
from moesim.moe.fan_out import typical_reach
from moesim.moe.traffic import Destinations
from moesim.study.resolve import Training

_SCALED = 1 + 4 / 128
"""Bytes of an fp8 value with its share of a block's scale."""
_PROBABILITY = 4.0
"""Bytes of a probability of the router."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Bytes of the rows of a layer on one rank, in the type of the activations."""

    tokens: float
    """Its own tokens, once each."""
    sent: float
    """Copies made for sending; 0 where tokens are sent as they lie."""
    received: float
    sorted: bool
    """Whether what is received is sorted by expert afterwards, and back before the combine."""
    experts: float


def layer_peak_bytes(run: Training, block: Block, dispatcher: str) -> float:
    """Return the peak of `block`, a layer after its norm; `dispatcher` as the case says it."""
    up, down = (one for one in block.operators if isinstance(one, GroupedGemm))
    act = next(one for one in block.operators if one.name == "expert_activation")
    assert isinstance(act, Pointwise)
    wide, narrow = run.job.shard.wide_bytes, up.dtype == "fp8"
    rows = _rows(run, block, dispatcher.casefold())
    shared, routed, router = _params(run)
    held = wide * (shared + routed + router)
    held += 2 * _SCALED * (shared + routed) if narrow else 0.0
    kept = kept_bytes(block.operators, run.job.recompute)

    named = rows.sent + rows.experts + (2 * rows.received if rows.sorted else 0.0)
    named += rows.experts if narrow else 0.0
    forward = kept + named + (rows.tokens if shared else 0.0)

    ends = 2 * rows.tokens  # the output and its gradient
    inner, outer = float(sum(up.rows) * up.n), float(sum(up.rows) * down.k)
    both = _PROBABILITY + wide if wide < _PROBABILITY else wide
    last = _kept(down, run.job.recompute)
    some = wide * (shared + routed * down.k * down.n / (down.k * down.n + up.k * up.n))
    activation = kept - last + wide * outer + both * inner + ends + some
    before = last + _kept(act, run.job.recompute)
    first = kept - before + wide * inner + rows.experts + ends + wide * (shared + routed)
    return held + max(forward, activation, first)


def _kept(operator: Pointwise | GroupedGemm, recompute: Sequence[str]) -> float:
    again = operator.input_from in recomputed_modules(recompute)
    return 0.0 if again or "full" in recompute else saved_bytes(operator)


def _rows(run: Training, block: Block, dispatcher: str) -> _Rows:
    dispatch = next(one for one in block.operators if isinstance(one, Exchange))
    up = next(one for one in block.operators if isinstance(one, GroupedGemm))
    row = dispatch.hidden * run.job.shard.wide_bytes
    tokens, experts = dispatch.tokens * row, sum(up.rows) * row
    received, sorts = experts, len(up.rows) > 1
    if "hybridep" in dispatcher:
        sorts = False
    elif run.layout.dispatcher != "alltoall":
        ranks, sorts = run.layout.ep, True
        reached = float(ranks)
        if run.layout.dispatcher == "deepep":
            where = Destinations(
                experts=dispatch.num_experts, top_k=dispatch.top_k, ranks=ranks, domains=1,
                groups=dispatch.groups, groups_per_token=dispatch.groups_per_token,
                group_best=dispatch.group_best,
            )  # fmt: skip
            reached = typical_reach(where).ranks
        received = tokens * reached
    copied = run.layout.dispatcher == "alltoall"
    return _Rows(
        tokens=tokens, sent=tokens * dispatch.copies if copied else 0.0, received=received,
        sorted=sorts, experts=experts,
    )  # fmt: skip


def _params(run: Training) -> tuple[float, float, float]:
    """Return the parameters of shared experts, routed experts and router on one rank."""
    placed = chunks(run.architecture, 1)[0][0]
    first = next(one for one in placed.layers if isinstance(one.layer.ffn, MoeFfn))
    assert isinstance(first.layer.ffn, MoeFfn)
    alone = replace(placed, layers=(first,), has_embedding=False, has_logits=False, mtp_layers=0)
    found = stage_params(run.architecture, [alone], run.job.shard)
    router = router_params(first.layer.ffn, run.architecture.hidden)
    return found.shared_experts, found.routed_experts, router
