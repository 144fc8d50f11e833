"""The network: from Megatron-LM's architecture arguments to the keys of a model.

Defaults: Megatron-LM, megatron/training/arguments.py and core/transformer/transformer_config.py
(from memory of the releases 0.12 to 0.15, unchecked line by line).
"""

import math
import re

from moesim.spec.megatron.layers import moe_layers, pattern
from moesim.spec.megatron.reading import Reading

_TOKENIZERS = {"GPT2BPETokenizer": 50257}
"""Vocabularies that the name of a tokenizer says: GPT-2's."""


def read_network(reading: Reading) -> None:
    """Read everything that shapes the weights."""
    for name in ("num-layers", "hidden-size", "num-attention-heads"):
        if not reading.has(name):
            reading.wrong(name, "has to be given")
    if reading.problems:
        return
    reading.put("model.hidden", reading.count("hidden-size"), "hidden-size")
    reading.put("model.vocab", vocabulary(reading), *_VOCABULARY)
    reading.put("model.layers", reading.count("num-layers"), "num-layers")
    _read_attention(reading)
    _read_ffn(reading)
    _read_rest(reading)


_VOCABULARY = ("vocab-size", "padded-vocab-size", "tokenizer-type", "make-vocab-size-divisible-by",
               "tensor-model-parallel-size")  # fmt: skip


def vocabulary(reading: Reading) -> int:
    """Return the tokens with padding: a multiple of make-vocab-size-divisible-by * tp.

    Source: Megatron-LM, _vocab_size_with_padding. NullTokenizer adds one token for the end of a
    document (from memory, unchecked).
    """
    if reading.has("padded-vocab-size"):
        return reading.count("padded-vocab-size")
    kind = reading.word("tokenizer-type", "")
    known = _TOKENIZERS.get(kind)
    if known is None and not reading.has("vocab-size"):
        reading.wrong("vocab-size", "has to be given: moesim reads no tokenizer")
        return 1
    tokens = reading.count("vocab-size", known or 0) + (kind == "NullTokenizer")
    multiple = reading.count("make-vocab-size-divisible-by", 128)
    multiple *= reading.count("tensor-model-parallel-size", 1)
    return math.ceil(tokens / multiple) * multiple


def _read_attention(reading: Reading) -> None:
    if reading.has("multi-latent-attention"):
        _read_latent(reading)
        return
    heads, hidden = reading.count("num-attention-heads"), reading.count("hidden-size")
    reading.put("model.attention.kind", "gqa", why="softmax attention")
    reading.put("model.attention.heads", heads, "num-attention-heads")
    grouped = reading.has("group-query-attention")
    kv_heads = reading.count("num-query-groups", 1) if grouped else heads
    reading.put("model.attention.kv_heads", kv_heads, "num-query-groups", "group-query-attention")
    if not grouped:
        reading.say("num-query-groups", "no effect without --group-query-attention")
    if not reading.has("kv-channels") and heads and hidden % heads:
        reading.wrong("num-attention-heads", f"must divide --hidden-size {hidden}")
    channels = reading.count("kv-channels", hidden // max(1, heads))
    reading.put("model.attention.head_dim", channels, "kv-channels", "hidden-size")
    if heads % max(1, kv_heads):
        reading.wrong("num-query-groups", f"must divide --num-attention-heads {heads}")
    _read_attention_rest(reading)
    _read_window(reading)


def _read_attention_rest(reading: Reading) -> None:
    bias = not reading.has("disable-bias-linear")
    reading.put("model.attention.qkv_bias", bias or reading.has("add-qkv-bias"),
                "disable-bias-linear", "add-qkv-bias")  # fmt: skip
    reading.put("model.attention.output_bias", bias, "disable-bias-linear")
    if reading.has("qk-layernorm"):
        reading.put("model.attention.qk_norm", "per_head", "qk-layernorm")
    if reading.has("attention-output-gate"):
        reading.put("model.attention.output_gate", True, "attention-output-gate")
    if reading.word("softmax-type", "vanilla") == "learnable":
        reading.put("model.attention.sinks", True, "softmax-type")
    reading.say("softmax-type", "sinks only where it is learnable")


def _read_window(reading: Reading) -> None:
    """--window-size "(127,0)" looks 127 tokens back; every N-th layer of skip-freq sees all."""
    if not reading.has("window-size"):
        reading.say("window-attn-skip-freq", "no effect without --window-size")
        return
    numbers = re.findall(r"-?\d+", " ".join(reading.given["window-size"].values))
    if not numbers or int(numbers[0]) < 1:
        reading.wrong("window-size", "must be two numbers such as 127,0, the first at least 1")
        return
    every = reading.word("window-attn-skip-freq", "")
    if every and not (every.isdigit() and int(every) > 1):
        reading.wrong("window-attn-skip-freq", "only a whole number above 1 is modelled")
        return
    full = {key: entry for key, entry in reading.model.items() if ".attention." in key}
    reading.put("model.attention.window", int(numbers[0]) + 1, "window-size",
                why="the token itself counts too")  # fmt: skip
    if every:
        reading.put("model.second_attention.every", int(every), "window-attn-skip-freq")
        for key, entry in full.items():
            reading.put(key.replace(".attention.", ".second_attention.attention."), entry.value)


def _read_latent(reading: Reading) -> None:
    """Defaults: Megatron-LM, MLATransformerConfig."""
    reading.put("model.attention.kind", "mla", "multi-latent-attention")
    reading.put(
        "model.attention.heads", reading.count("num-attention-heads"), "num-attention-heads"
    )
    if reading.has("q-lora-rank"):
        reading.put("model.attention.q_lora_rank", reading.count("q-lora-rank"), "q-lora-rank")
    for key, name, default in (
        ("kv_lora_rank", "kv-lora-rank", 32), ("qk_nope_head_dim", "qk-head-dim", 128),
        ("qk_rope_head_dim", "qk-pos-emb-head-dim", 64), ("v_head_dim", "v-head-dim", 128),
    ):  # fmt: skip
        reading.put(f"model.attention.{key}", reading.count(name, default), name)
    reading.say("qk-layernorm", "norms of the latent vectors, which moesim always counts")
    reading.say("kv-channels", "no effect with latent attention")
    if reading.has("group-query-attention"):
        reading.wrong("group-query-attention", "cannot stand beside --multi-latent-attention")
    if not reading.has("disable-bias-linear"):
        reading.put("model.attention.bias", True, "disable-bias-linear")


_GATES = ("swiglu", "quick-geglu", "squared-relu")


def _gated(reading: Reading) -> bool:
    if reading.has("swiglu") and reading.has("squared-relu"):
        reading.wrong("swiglu", "cannot stand beside --squared-relu")
    return reading.has("swiglu", "quick-geglu")


def _dense_width(reading: Reading) -> int:
    """4 h; with swiglu 8/3 h rounded down to a multiple of 64."""
    hidden = reading.count("hidden-size")
    usual = int(4 * hidden * 2 / 3 / 64) * 64 if reading.has("swiglu") else 4 * hidden
    return reading.count("ffn-hidden-size", usual)


def _read_ffn(reading: Reading) -> None:
    layers, experts = reading.count("num-layers"), reading.count("num-experts")
    bias, gated = not reading.has("disable-bias-linear"), _gated(reading)
    if not experts:
        _put_dense(reading, gated=gated, bias=bias)
        return
    _read_experts(reading, experts, gated=gated, bias=bias)
    try:
        rule = pattern(moe_layers(reading.word("moe-layer-freq", "1"), layers))
    except ValueError as error:
        reading.wrong("moe-layer-freq", str(error))
        return
    shifted = "as many layers with experts, the last of every n instead of the first"
    if rule.dense_first:
        reading.put("model.dense_first_layers", rule.dense_first, "moe-layer-freq")
    if rule.every > 1:
        reading.put("model.moe_every", rule.every, "moe-layer-freq",
                    why=shifted if rule.shifted else "")  # fmt: skip
    if rule.dense_first or rule.every > 1:
        _put_dense(reading, gated=gated, bias=bias)
        return
    reading.say("moe-layer-freq", "experts in every layer")
    if reading.has("moe-ffn-hidden-size"):
        reading.say("ffn-hidden-size", "no effect: every layer has experts")


def _put_dense(reading: Reading, *, gated: bool, bias: bool) -> None:
    reading.put("model.ffn.width", _dense_width(reading), "ffn-hidden-size", "hidden-size")
    reading.put("model.ffn.gated", gated, *_GATES)
    reading.put("model.ffn.bias", bias, "disable-bias-linear")


def _read_experts(reading: Reading, experts: int, *, gated: bool, bias: bool) -> None:
    top_k = reading.count("moe-router-topk", 2)
    reading.put("model.moe.num_experts", experts, "num-experts")
    reading.put("model.moe.top_k", top_k, "moe-router-topk")
    width = reading.count("moe-ffn-hidden-size", _dense_width(reading))
    by = "moe-ffn-hidden-size" if reading.has("moe-ffn-hidden-size") else "ffn-hidden-size"
    reading.put("model.moe.expert_width", width, by, "hidden-size")
    reading.put("model.moe.gated", gated, *_GATES)
    reading.put("model.moe.expert_bias", bias, "disable-bias-linear")
    if top_k > experts:
        reading.wrong("moe-router-topk", f"must be at most --num-experts {experts}")
    if reading.has("moe-shared-expert-intermediate-size"):
        shared = reading.count("moe-shared-expert-intermediate-size")
        reading.put("model.moe.shared_expert_width", shared, "moe-shared-expert-intermediate-size")
    elif reading.has("moe-shared-expert-gate"):
        reading.wrong("moe-shared-expert-gate", "needs --moe-shared-expert-intermediate-size")
    if reading.has("moe-shared-expert-gate"):
        reading.put("model.moe.shared_expert_gate", True, "moe-shared-expert-gate")
    _read_groups(reading, experts, top_k)


def _read_groups(reading: Reading, experts: int, top_k: int) -> None:
    """Group-limited routing: a group counts by its top_k // group_topk best scores.

    Source: Megatron-LM, core/transformer/moe/moe_utils.py, group_limited_topk.
    """
    names = ("moe-router-num-groups", "moe-router-group-topk")
    limited = "moe-router-topk-limited-devices"
    if reading.has(limited):
        groups, per_token = reading.count("expert-model-parallel-size", 1), reading.count(limited)
        names = ("expert-model-parallel-size", limited)
    else:
        groups, per_token = reading.count(names[0]), reading.count(names[1])
    if not groups and not per_token:
        return
    if not (groups and per_token):
        reading.wrong(names[0] if groups else names[1],
                      f"--{names[0]} and --{names[1]} need each other")  # fmt: skip
    elif experts % groups:
        reading.wrong(names[0], f"{groups} groups must divide --num-experts {experts}")
    elif per_token > groups:
        reading.wrong(names[1], f"must be at most the {groups} groups")
    elif top_k < per_token:
        reading.wrong(names[1], f"must be at most --moe-router-topk {top_k}")
    else:
        reading.put("model.moe.groups", groups, names[0])
        reading.put("model.moe.groups_per_token", per_token, names[1])
        reading.put("model.moe.group_best", max(1, top_k // per_token), names[1],
                    why="top-k over groups per token")  # fmt: skip


def _read_rest(reading: Reading) -> None:
    norm = reading.word("normalization", "LayerNorm", ("LayerNorm", "RMSNorm"))
    reading.put("model.norm", "rms" if norm == "RMSNorm" else "layer", "normalization")
    tied = not reading.has("untie-embeddings-and-output-weights")
    reading.put("model.tied_embeddings", tied, "untie-embeddings-and-output-weights")
    kinds = ("learned_absolute", "rope", "yarn", "mrope", "relative", "none")
    kind = reading.word("position-embedding-type", "learned_absolute", kinds)
    if reading.has("use-rotary-position-embeddings"):
        kind = "rope"
    if kind == "learned_absolute":
        rows = reading.count("max-position-embeddings", reading.count("seq-length", 1))
        reading.put("model.learned_positions", rows, "position-embedding-type",
                    "max-position-embeddings")  # fmt: skip
    for name in ("position-embedding-type", "max-position-embeddings"):
        if name not in reading.became:
            reading.say(name, "no parameters: positions are not learned")
    if reading.has("mtp-num-layers"):
        reading.put("model.mtp_layers", reading.count("mtp-num-layers"), "mtp-num-layers")
