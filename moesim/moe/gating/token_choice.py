"""Rules in which each token takes its best experts: softmax top-k, noisy top-k, Switch, ST-MoE."""

import numpy as np

from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.scores import GUMBEL_SD, Array, best, logits, softmax, weigh


def softmax_topk(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return the k experts with the largest logits, weighted by softmax.

    With `normalise` the weights are a softmax over the chosen (Mixtral, Qwen3), else one over all
    experts (OLMoE).

    Sources: Mixtral of Experts (arXiv 2401.04088); OLMoE (arXiv 2409.02060).
    """
    found = logits(gate, shares, tokens, generator)
    return weigh(best(found, gate.top_k), softmax(found), normalise=gate.normalise)


def noisy_topk(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return Shazeer's choice: G = softmax(KeepTopK(H, k)), H = logits + noise * N(0, 1).

    `noise` stands for softplus((x W_noise)_i). At the first step both weight matrices are zero:
    sharpness 0 and noise ln 2.

    Source: Shazeer et al. 2017 (arXiv 1701.06538).
    """
    clean = logits(gate, shares, tokens, generator)
    noisy = clean + gate.noise * generator.standard_normal(clean.shape)
    return weigh(best(noisy, gate.top_k), softmax(noisy), normalise=True)


def jitter_noise(gate: Gate) -> float:
    """Return the standard deviation that input jitter puts on a logit.

    A factor U(1 - j, 1 + j) on each input number has variance j^2 / 3. A logit is a sum of many
    products of such numbers; taken as independent with mean zero, their squares add up to the
    variance of the logit over tokens: noise sd = j / sqrt(3) * sharpness * sd(Gumbel).
    """
    return float(gate.jitter / np.sqrt(3) * gate.sharpness * GUMBEL_SD)


def switch_top1(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return each token's best expert with its softmax probability as weight, the input jittered.

    Source: Switch Transformers (JMLR 2022); jitter 1e-2 in tensorflow/mesh
    mesh_tensorflow/transformer/moe.py _switch_gating @da907937.
    """
    found = _jittered(gate, shares, tokens, generator)
    return weigh(best(found, 1), softmax(found), normalise=False)


def st_moe(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return each token's k best experts (2 in ST-MoE), all sent, the input jittered.

    Weights are probabilities over all experts: the router multiplies its dispatch mask with them.

    Sources: ST-MoE (arXiv 2202.08906); google/flaxformer
    flaxformer/architectures/moe/routing.py TokensChooseMaskedRouter @399ea3a8.
    """
    found = _jittered(gate, shares, tokens, generator)
    return weigh(best(found, gate.top_k), softmax(found), normalise=False)


def _jittered(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Array:
    found = logits(gate, shares, tokens, generator)
    if gate.jitter > 0:
        found += jitter_noise(gate) * generator.standard_normal(found.shape)
    return found
