"""Trains a small MoE language model on bytes and writes down which experts its tokens chose.

Makes tiny-moe.npz, the routing that the scenario routing-trace-replay replays: 3 layers of 32
experts, four per token, trained with a balancing loss on Python's own sources (domain code) and on
the texts of its help (domain prose), then run on text of each that it was not trained on. A real
router's choices, of a model far too small to stand for a large one. Needs torch; takes about five
minutes on one core. Run: python make_tiny_moe.py
"""

import pydoc_data.topics
import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

LAYERS, WIDTH, HEADS, EXPERTS, TOP_K = 3, 96, 4, 32, 4
LENGTH, BATCH, STEPS, TRACED = 128, 16, 1500, 16
BALANCE = 0.01
"""Weight of the Switch balancing loss, as in the Switch paper."""


class Experts(nn.Module):
    """A router and its experts; the last choices stay readable."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * WIDTH) * WIDTH**-0.5)
        self.down = nn.Parameter(torch.randn(EXPERTS, 2 * WIDTH, WIDTH) * (2 * WIDTH) ** -0.5)
        self.chosen = torch.empty(0)
        self.loss = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """Return what the chosen experts make of x [tokens, WIDTH]."""
        affinity = fn.softmax(self.router(x), dim=-1)
        weights, self.chosen = affinity.topk(TOP_K, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        share = fn.one_hot(self.chosen, EXPERTS).float().sum(dim=1).mean(dim=0) / TOP_K
        self.loss = EXPERTS * (share * affinity.mean(dim=0)).sum()
        out = torch.zeros_like(x)
        for expert in range(EXPERTS):
            token, choice = (self.chosen == expert).nonzero(as_tuple=True)
            inner = fn.gelu(x[token] @ self.up[expert]) @ self.down[expert]
            out = out.index_add(0, token, inner * weights[token, choice, None])
        return out


class Layer(nn.Module):
    """Attention and experts, each with its norm and residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.experts = Experts()

    def forward(self, x: Tensor) -> Tensor:
        """Return x [batch, LENGTH, WIDTH] after the layer."""
        split = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = fn.scaled_dot_product_attention(split[0], split[1], split[2], is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.experts(self.norms[1](x).flatten(0, 1)).view_as(x)


class Model(nn.Module):
    """A decoder on bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.byte = nn.Embedding(256, WIDTH)
        self.place = nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.byte.weight, std=0.1)

    def forward(self, text: Tensor) -> Tensor:
        """Return logits [batch, LENGTH, 256]."""
        x = self.byte(text) + self.place.weight[: text.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.byte.weight.T


def texts() -> dict[str, Tensor]:
    """Return the bytes of the two domains."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    code = b"".join(file.read_bytes() for file in sorted(folder.glob("*.py")))
    prose = "\n".join(pydoc_data.topics.topics.values()).encode()
    return {
        "code": torch.tensor(list(code[: len(prose)])),
        "prose": torch.tensor(list(prose)),
    }


def batch(text: Tensor, size: int) -> Tensor:
    """Return [size, LENGTH + 1] bytes from random places."""
    starts = torch.randint(len(text) - LENGTH - 1, (size,))
    return torch.stack([text[start : start + LENGTH + 1] for start in starts])


def train(model: Model, parts: list[Tensor]) -> None:
    """Train the model on equal parts of the domains."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        rows = torch.cat([batch(part, BATCH // len(parts)) for part in parts])
        loss = fn.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        balance = sum(layer.experts.loss for layer in model.layers)
        optimizer.zero_grad()
        (loss + BALANCE * balance).backward()
        optimizer.step()
        if step % 100 == 0:
            print(step, round(loss.item(), 3))


def main() -> None:
    """Train, trace and write."""
    torch.manual_seed(0)
    domains = texts()
    cut = {name: int(0.9 * len(text)) for name, text in domains.items()}
    model = Model()
    train(model, [text[: cut[name]] for name, text in domains.items()])
    arrays = {}
    for name, text in domains.items():
        unseen = text[cut[name] :][: TRACED * LENGTH].view(TRACED, LENGTH)
        with torch.no_grad():
            model(unseen)
        chosen = torch.stack([layer.experts.chosen for layer in model.layers])
        arrays[f"{name}_ids"] = chosen.numpy().astype(np.uint8)
        arrays[f"{name}_seq_len"] = np.full(TRACED, LENGTH, dtype=np.int32)
    np.savez_compressed("tiny-moe.npz", **arrays)


if __name__ == "__main__":
    main()
