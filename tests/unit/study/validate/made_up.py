"""Cases, models and machines that no file has, for tests of `moesim validate`."""

from pathlib import Path
from typing import Any

from moesim.spec.cases import Case, CaseFile

MODELS: dict[str, dict[str, Any]] = {
    "tiny-moe": {
        "cls": "moe", "layers": 4, "dense_first_layers": 1, "hidden": 1024, "vocab": 32000,
        "attn": {"type": "gqa", "heads": 8, "kv_heads": 2, "head_dim": 128}, "dense_ffn": 2048,
        "gated": True, "experts": 8, "top_k": 2, "expert_ffn": 512, "shared_expert_ffn": 256,
    },
    "tiny-mla": {
        "cls": "dense", "layers": 2, "hidden": 512, "vocab": 1000, "dense_ffn": 2048,
        "gated": False, "mtp": 1, "tied_embeddings": True,
        "attn": {"type": "mla", "heads": 4, "q_lora": 96, "kv_lora": 64, "qk_nope": 32,
                 "qk_rope": 16, "v_dim": 32},
    },
    "tiny-t5": {
        "cls": "dense", "layers": 2, "hidden": 512, "vocab": 1000, "dense_ffn": 1024,
        "gated": False, "attn": {"heads": 8}, "encoder_decoder": True,
    },
}  # fmt: skip

HARDWARE: dict[str, dict[str, Any]] = {
    "our-boxes": {"chip": "NVIDIA H100 SXM 80 GB", "chips_per_node": 8},
    "mystery": {"chip": "Abacus 9000"},
}

STEP: dict[str, Any] = {
    "id": "step", "quality": "A", "kind": "train_step", "cls": "moe", "source": "a test",
    "model": "tiny-moe", "hardware": "our-boxes", "chips": 8,
    "parallel": {"tp": 1, "pp": 2, "ep": 4, "mbs": 1, "gbs": 8, "seq": 512},
    "precision": "bf16", "options": {"routing": "forced balance", "recompute": "none"},
    "measured": {"step_time_s": 0.5},
}  # fmt: skip


def case(**changes: Any) -> Case:
    """Return a training step with other words; a part that is a mapping is replaced whole."""
    words = STEP | changes
    return Case(words["id"], words["kind"], words)


def case_file(
    models: dict[str, Any] = MODELS, hardware: dict[str, Any] = HARDWARE, **lists: Any
) -> CaseFile:
    """Return a file that describes `models` and `hardware`."""
    return CaseFile(
        path=Path("made-up.yaml"), cases=(), models=models, hardware=hardware,
        pairs=lists.get("pairs", ()), contrasts=lists.get("contrasts", ()),
    )  # fmt: skip
