"""How MaxText and Mesh TensorFlow cut and recompute a model on TPUs, by their documents.

MaxText: per-device batches; dense weights fully sharded over all mesh axes but those of replicas
and tensors, experts over theirs; everything computed again unless a policy keeps names. Source:
AI-Hypercomputer/maxtext configs/base.yml (ici_fsdp_parallelism: -1,
remat_policy: full, logical_axis_rules: embed over fsdp and expert).
"""

import re
from dataclasses import dataclass

from moesim.spec.cases import Case, Words

_KEPT_BY = {
    "qkv": ("query_proj", "key_proj", "value_proj"),
    "proj": ("out_proj",),
    "mlp": ("mlpwi_0", "mlpwi_1", "mlpwo"),
}
"""Modules, and the names of MaxText's tensors that must all be kept for one not to run again."""
_MODULES = ("layernorm", "qkv", "core_attn", "mla_up_proj", "proj", "mlp", "moe_act", "moe")

_GUESS = re.compile(
    r"([1-9]\d{0,6})(?: tokens)? in, ([1-9]\d{0,6}) out(?: and|,) batch(?:es of)? 2\^(\d{1,2})\b"
)


def is_tpu(case: Case) -> bool:
    """Tell whether a case ran on TPUs."""
    return case.text("hardware").casefold().startswith("tpu")


def is_maxtext(case: Case) -> bool:
    """Tell whether a case counts as MaxText does: sequences or tokens per device."""
    cut = case.part("parallel")
    return is_tpu(case) and ("pdb" in cut or "tokens_per_device" in cut)


def remat(case: Case) -> tuple[str | list[str], str]:
    """Return what is computed again under MaxText, and the assumption made."""
    kept = case.part("options").get("activation_offload")
    if not isinstance(kept, list):
        return "full", "remat policy not stated: full, MaxText's default"
    again = [name for name in _MODULES if not _keeps(name, kept)]
    return again or "none", "what is offloaded is kept, all else is computed again"


def _keeps(module: str, kept: list[str]) -> bool:
    return module in _KEPT_BY and all(name in kept for name in _KEPT_BY[module])


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """Sequences per device, tokens per sequence, and what was assumed of them."""

    sequences: int
    length: int
    note: str = ""


def device_batch(cut: Words) -> DeviceBatch | None:
    """Return the batch of one device; None where the case gives none."""
    length, per_device, tokens = (cut.get(k) for k in ("seq", "pdb", "tokens_per_device"))
    if isinstance(length, int) and isinstance(per_device, int):
        return DeviceBatch(per_device, length)
    if isinstance(tokens, int) and length is None:
        note = f"sequence length not stated: one sequence of {tokens} tokens per device"
        return DeviceBatch(1, tokens, note)
    return None


@dataclass(frozen=True, slots=True)
class StatedBatch:
    """A batch that a case states among its guesses."""

    length: int
    target_length: int
    sequences: int


def guessed_batch(case: Case) -> StatedBatch | None:
    """Return the batch in a guess such as `sequence 512 in, 114 out and batch 2^20 tokens`."""
    guesses = case.words.get("guesses")
    text = " ".join(map(str, guesses)) if isinstance(guesses, list) else ""
    found = _GUESS.search(text)
    if found is None:
        return None
    length, target, power = (int(one) for one in found.groups())
    return StatedBatch(length, target, 2**power // length)
