"""One call of each phase: an optimizer step, a prefill, a decode iteration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moesim.calibrate import pieces
from moesim.calibrate.bench import Effort, Timing, time_call
from moesim.calibrate.device import Target, synchronise, torch_dtype, torch_module
from moesim.calibrate.meter import LocalMeter
from moesim.calibrate.verify.models import Cache, Model, hidden_states, make
from moesim.calibrate.verify.plan import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a trial took."""

    timing: Timing
    memory_bytes: float | None
    """Peak, where the device reports it; on a CPU what is kept for the backward pass, with
    weights, gradients and optimizer states."""
    dropped_fraction: float


def measure_trial(meter: LocalMeter, trial: Trial, effort: Effort) -> Measured:
    """Return what a trial takes on this rank."""
    target = meter.target
    torch = torch_module()
    torch.manual_seed(7)  # all ranks draw the same weights, and each its own tokens
    model = make(trial, target.kind, ranks=target.processes, in_one_call=meter.in_one_call)
    if target.processes > 1:
        torch.manual_seed(8 + torch.distributed.get_rank())
    if target.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    call = _PHASES[trial.phase](model, trial, target)
    if target.processes > 1:
        from moesim.calibrate.ranks import time_together

        timing = time_together(lambda: call(0), target, effort)
    else:
        timing = time_call(call, target, effort, wall=True)
    dropped = model.dropped[-trial.model.layers :]
    return Measured(
        timing=timing,
        memory_bytes=_peak_bytes(model, trial, target, call),
        dropped_fraction=sum(dropped) / len(dropped) if dropped else 0.0,
    )


def _tokens(trial: Trial, target: Target, length: int) -> Any:
    torch = torch_module()
    return torch.randint(trial.model.vocab, (trial.sequences, length), device=target.kind)


def _rotary(trial: Trial, model: Model, length: int) -> tuple[Any, Any]:
    return pieces.rotary(length, trial.model.head_dim, model.table)


def _logits(model: Model, x: Any, residual: Any) -> Any:
    h, _ = pieces.add_norm(x, residual, model.final_norm)
    return torch_module().nn.functional.linear(h, model.logits)


def loss_of(model: Model, tokens: Any, rotary: tuple[Any, Any]) -> Any:
    """Return the loss of predicting each token from itself: the work is the same."""
    x, residual = hidden_states(model, tokens, rotary, None, 0)
    return pieces.cross_entropy(_logits(model, x, residual).flatten(0, 1), tokens.flatten())


def optimizer_of(model: Model, kind: str) -> Any:
    """Return AdamW, fused where torch has it."""
    torch = torch_module()
    how = {"foreach": True} if kind == "mps" else {"fused": True}
    return torch.optim.AdamW(model.parameters(), lr=1e-5, **how)


def _train(model: Model, trial: Trial, target: Target) -> Callable[[int], object]:
    tokens = _tokens(trial, target, trial.length)
    rotary = _rotary(trial, model, trial.length)
    optimizer = optimizer_of(model, target.kind)

    def step(turn: int) -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, tokens, rotary)
        loss.backward()
        if model.ranks > 1:
            _reduce(model)
        optimizer.step()
        return loss

    return step


def _reduce(model: Model) -> None:
    """Sum the gradients of what every rank has a copy of, in one buffer."""
    torch = torch_module()
    grads = [weight.grad for weight in model.shared()]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    torch.distributed.all_reduce(flat)
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view(grad.shape))


def _prefill(model: Model, trial: Trial, target: Target) -> Callable[[int], object]:
    tokens = _tokens(trial, target, trial.length)
    rotary = _rotary(trial, model, trial.length)
    torch = torch_module()

    def prefill(turn: int) -> object:
        with torch.no_grad():
            x, residual = hidden_states(model, tokens, rotary, None, 0)
            return _logits(model, x[:, -1:], residual[:, -1:])

    return prefill


_ROOM = 32
"""Tokens that decode may add before it starts over at the same length."""


def _decode(model: Model, trial: Trial, target: Target) -> Callable[[int], object]:
    torch = torch_module()
    small = trial.model
    tokens = _tokens(trial, target, 1)
    shape = (trial.sequences, small.kv_heads, trial.length + _ROOM, small.head_dim)
    dtype = torch_dtype(trial.dtype)

    def random() -> Any:
        return 0.05 * torch.randn(shape, device=target.kind).to(dtype)

    caches = [Cache(random(), random()) for _ in model.layers]
    cos, sin = _rotary(trial, model, trial.length + _ROOM)

    def iteration(turn: int) -> object:
        position = trial.length - 1 + turn % _ROOM
        here = slice(position, position + 1)
        with torch.no_grad():
            x, residual = hidden_states(model, tokens, (cos[here], sin[here]), caches, position)
            return _logits(model, x, residual)

    return iteration


_PHASES = {"train": _train, "prefill": _prefill, "decode": _decode}


def _peak_bytes(
    model: Model, trial: Trial, target: Target, call: Callable[[int], object]
) -> float | None:
    torch = torch_module()
    if target.kind == "cuda":
        synchronise(target)
        return float(torch.cuda.max_memory_allocated())
    if trial.phase != "train" or target.processes > 1:
        return None
    weights = float(sum(weight.numel() * weight.element_size() for weight in model.parameters()))
    return 4.0 * weights + kept_bytes(model, trial, target)


def kept_bytes(model: Model, trial: Trial, target: Target) -> float:
    """Return the bytes that autograd keeps for the backward pass, weights left out."""
    torch = torch_module()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = _tokens(trial, target, trial.length)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model, tokens, _rotary(trial, model, trial.length))
    del loss
    return float(sum(kept.values()))
