"""Reads how the ranks that share a sequence come by each other's keys and values."""

from moesim.spec.cases import Case
from moesim.study.validate.options import Reading

_WORDS = {
    "a2a": "all_to_all", "all_to_all": "all_to_all", "ulysses": "all_to_all",
    "p2p": "ring", "ring": "ring", "all_gather": "all_gather", "allgather": "all_gather",
}  # fmt: skip


def read_context(case: Case, reading: Reading) -> None:
    """Read what a case says, else the trainer's default.

    Megatron-LM sends round a ring (--cp-comm-type p2p); PyTorch's context_parallel and MaxText
    gather (torch/distributed/tensor/experimental/_context_parallel/_attention.py, rotate_method;
    context_parallel_strategy, from memory).
    """
    if reading.parallel.get("cp", 1) == 1:
        return
    said = str(case.part("options").get("cp_comm", "")).casefold()
    words = f"{case.text('source')} {case.part('options').get('framework', '')}".casefold()
    default = "all_gather" if any(w in words for w in ("fsdp", "maxtext")) else "ring"
    reading.parallel["cp_comm"] = _WORDS.get(said, default)
    if said not in _WORDS:
        said_so = f"'{said}' is not known" if said else "not stated"
        reading.assume(f"context parallel exchange {said_so}: {default}")
