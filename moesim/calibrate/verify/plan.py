"""Which small models are built, and what is timed of them."""

from dataclasses import dataclass, replace

from moesim.calibrate.device import Target
from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    GroupedQueryAttention,
    Layer,
    MoeFfn,
    Run,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A decoder small enough for a laptop: grouped-query attention, SwiGLU, maybe experts."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    """Of the feed-forward network, or of one expert."""
    vocab: int
    num_experts: int = 0
    top_k: int = 0
    capacity_factor: float | None = None

    @property
    def name(self) -> str:
        """A short name that tells all sizes."""
        base = f"{self.hidden}x{self.layers}"
        if not self.num_experts:
            return f"dense {base} ffn {self.width}"
        factor = f" cf {self.capacity_factor:g}" if self.capacity_factor else ""
        return f"moe {base} {self.num_experts}e top-{self.top_k} ffn {self.width}{factor}"

    @property
    def twin(self) -> "Small":
        """The dense model with as many active parameters in its feed-forward network."""
        return replace(
            self, width=self.width * self.top_k, num_experts=0, top_k=0, capacity_factor=None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A model, and what is timed of it."""

    model: Small
    phase: str
    """train: one optimizer step; prefill: the prompts' forward pass; decode: one iteration."""
    sequences: int
    length: int
    """Tokens of a sequence; in decode those in the cache already."""
    dtype: str

    @property
    def tokens(self) -> int:
        """Tokens that one call brings forward."""
        return self.sequences * (1 if self.phase == "decode" else self.length)

    @property
    def twin(self) -> "Trial | None":
        """The same trial of the dense twin; None for a dense model."""
        return replace(self, model=self.model.twin) if self.model.num_experts else None


def architecture(small: Small) -> Architecture:
    """Return the model as moesim counts it."""
    attention = GroupedQueryAttention(
        heads=small.heads, kv_heads=small.kv_heads, head_dim=small.head_dim
    )
    ffn: DenseFfn | MoeFfn = DenseFfn(width=small.width)
    if small.num_experts:
        ffn = MoeFfn(num_experts=small.num_experts, top_k=small.top_k, expert_width=small.width)
    return Architecture(
        name=small.name, source="built by moesim calibrate --verify", hidden=small.hidden,
        vocab=small.vocab, decoder=(Run(Layer(attention=attention, ffn=ffn), small.layers),),
    )  # fmt: skip


def trials(target: Target) -> list[Trial]:
    """Return the trials for a device, dense twins included, each once."""
    scale = 4 if target.kind == "cuda" else 1
    dtype = target.dtypes[0]
    routed = [
        Trial(model=_scaled(model, scale), phase=phase, sequences=sequences,
              length=length * scale, dtype=dtype)
        for model, phase, sequences, length in _ROUTED
        if model.num_experts % target.processes == 0
    ]  # fmt: skip
    if target.processes > 1:
        routed = [trial for trial in routed if trial.phase != "decode"]
    both = [one for trial in routed for one in (trial.twin, trial) if one is not None]
    return list(dict.fromkeys(both))


def _scaled(small: Small, scale: int) -> Small:
    return replace(
        small, hidden=small.hidden * scale, heads=small.heads * scale,
        kv_heads=small.kv_heads * scale, width=small.width * scale, vocab=small.vocab * scale,
    )  # fmt: skip


def _small(
    hidden: int, layers: int, experts: int, top_k: int, width: int, factor: float = 0
) -> Small:
    heads = hidden // 64
    return Small(
        hidden=hidden, layers=layers, heads=heads, kv_heads=max(1, heads // 4), head_dim=64,
        width=width, vocab=4096 if hidden > 256 else 2048, num_experts=experts, top_k=top_k,
        capacity_factor=factor or None,
    )  # fmt: skip


_ROUTED = (
    (_small(256, 4, 4, 1, 768), "train", 2, 128),
    (_small(512, 2, 8, 2, 768), "train", 2, 128),
    (_small(512, 2, 16, 4, 384), "train", 2, 128),
    (_small(512, 2, 8, 2, 768, 1.0), "train", 2, 128),
    (_small(512, 2, 8, 1, 1536, 1.25), "train", 4, 64),
    (_small(768, 2, 8, 2, 1024), "train", 1, 256),
    (_small(512, 2, 8, 2, 768), "prefill", 1, 256),
    (_small(768, 4, 8, 2, 1024), "prefill", 2, 128),
    (_small(768, 4, 8, 2, 1024), "decode", 1, 256),
    (_small(768, 4, 8, 2, 1024), "decode", 8, 256),
    (_small(768, 4, 16, 1, 1024), "decode", 4, 512),
)  # fmt: skip
"""MoE models, what is timed, sequences, length. Decode models are larger than a CPU's caches."""
