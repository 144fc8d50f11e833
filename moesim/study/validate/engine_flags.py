"""What the free text of a published case says of an engine's flags and number formats.

Texts such as `max_num_batched_tokens 8192, max_num_seqs=concurrency, gpu_mem_util 0.9, prefix cache
off`. What has a key of a scenario becomes one; what is understood and has none is kept by name;
every other piece is listed as an assumption: the engine's default stands in its place.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["offline", "server"]


@dataclass(slots=True, kw_only=True)
class FlagsRead:
    """What a text of flags came to."""

    engine: dict[str, Any] = field(default_factory=dict)
    """Keys of EngineSpec."""
    formats: dict[str, str] = field(default_factory=dict)
    """Keys of FormatsSpec."""
    features: dict[str, Any] = field(default_factory=dict)
    """Understood, without a key of EngineSpec: cache_blocks, and graph_batch, whose sizes are the
    engine's own."""
    assumed: list[str] = field(default_factory=list)
    """What was not understood or not used, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the case says beside its flags."""

    concurrency: int | None
    prompt_tokens: float | None
    mode: Mode | None


def read_flags(
    text: str | None,
    concurrency: int | None = None,
    *,
    prompt_tokens: float | None = None,
    mode: Mode | None = None,
) -> FlagsRead:
    """Return what `text` says; `concurrency` and `prompt_tokens` are those of the row.

    They fill in `max_num_seqs=concurrency` and `max_num_batched_tokens 2*ISL`; `mode` picks the
    side of `batch 3072 offline / 1200 server`.
    """
    read = FlagsRead()
    known = _Known(concurrency=concurrency, prompt_tokens=prompt_tokens, mode=mode)
    for piece in _pieces(text or ""):
        if not any(_matched(pattern, rule, piece, read, known) for pattern, rule in _RULES):
            read.assumed.append(f"engine flag not understood, default taken: {piece}")
    return read


def read_precision(words: Mapping[str, str] | str | None) -> FlagsRead:
    """Return the formats that a case's precision says: `weights` and `kv`, each in free text."""
    said = {"weights": words} if isinstance(words, str) else dict(words or {})
    read = FlagsRead()
    weights = str(said.pop("weights", "") or "")
    main, _, aside = weights.partition(", KV ")
    _read_weights(main, read)
    for cache in (aside, str(said.pop("kv", "") or "")):
        if cache:
            _read_cache(cache, read)
    read.assumed += [f"precision not used: {key} {value}" for key, value in said.items()]
    return read


_WEIGHTS: tuple[tuple[str, dict[str, str]], ...] = (
    (r"mxfp4 experts.*|mxfp4", {"weights": "bf16", "experts": "w4a16_mxfp4"}),
    (r"nvfp4( weights)?", {"weights": "nvfp4"}),
    (r"fp8( \(checkpoint\))?", {"weights": "fp8"}),
    (r"bf16", {"weights": "bf16"}),
    (r"fp16", {"weights": "fp16"}),
    (r"int8", {"weights": "int8"}),
    (r"(gptq-|awq-)?int4", {"weights": "int4_weight_only"}),
)


def _read_weights(text: str, read: FlagsRead) -> None:
    for pattern, formats in _WEIGHTS:
        if re.fullmatch(pattern, text.strip(), re.IGNORECASE):
            read.formats |= formats
            return
    if text:
        read.assumed.append(f"precision of weights not understood: {text}")


def _read_cache(text: str, read: FlagsRead) -> None:
    found = re.match(r"(fp8|auto|bf16|fp16|16 bit)", text.strip(), re.IGNORECASE)
    if found is None:
        read.assumed.append(f"precision of the cache not understood: {text}")
        return
    read.formats["cache"] = "fp8" if found[1].lower() == "fp8" else "bf16"
    rest = text.strip()[found.end() :].strip()
    if rest and rest not in ("(auto)", "(bf16)", "_e4m3"):
        read.assumed.append(f"cache in {read.formats['cache']}: the source says '{text}'")


def _pieces(text: str) -> list[str]:
    """Return what commas separate; `A and B on` is two pieces."""
    found = []
    for piece in (part.strip() for part in text.split(",")):
        both = re.fullmatch(r"(.+) and (.+) (on|off)", piece)
        found += [f"{both[1]} {both[3]}", f"{both[2]} {both[3]}"] if both else [piece]
    return [piece for piece in found if piece]


Rule = Callable[["re.Match[str]", FlagsRead, _Known], None]


def _matched(pattern: str, rule: Rule, piece: str, read: FlagsRead, known: _Known) -> bool:
    found = re.fullmatch(pattern, piece, re.IGNORECASE)
    if found is not None:
        rule(found, read, known)
    return found is not None


def _whole(key: str) -> Rule:
    def rule(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
        del known
        read.engine[key] = int(found[1])

    return rule


def _real(key: str) -> Rule:
    def rule(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
        del known
        read.engine[key] = float(found[1])

    return rule


def _graph_batch(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
    del known
    read.features["graph_batch"] = int(found[1])


def _switch(key: str, *, on: bool) -> Rule:
    def rule(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
        del found, known
        read.engine[key] = on

    return rule


def _formats(**formats: str) -> Rule:
    def rule(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
        del found, known
        read.formats |= formats

    return rule


def _nothing(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
    """Says what moesim takes anyway."""
    del found, read, known


def _noted(why: str) -> Rule:
    def rule(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
        del known
        read.assumed.append(f"{found[0]}: {why}")

    return rule


def _sequences_as_load(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
    if known.concurrency is None:
        read.assumed.append(f"{found[0]}: the row has no concurrency, default taken")
    else:
        read.engine["max_sequences"] = known.concurrency


def _budget_as_prompt(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
    if known.prompt_tokens is None:
        read.assumed.append(f"{found[0]}: the row has no prompt length, default taken")
    else:
        read.engine["token_budget"] = round(float(found[1]) * known.prompt_tokens)


def _by_mode(key: str) -> Rule:
    """`A offline / B server`: the side of the case; offline where the case says neither."""

    def rule(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
        read.engine[key] = int(found[2 if known.mode == "server" else 1])
        if known.mode is None:
            read.assumed.append(f"{found[0]}: offline taken")

    return rule


def _range(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
    del known
    read.engine["max_sequences"] = int(found[2])
    read.assumed.append(f"{found[0]}: the upper end taken")


def _blocks(found: "re.Match[str]", read: FlagsRead, known: _Known) -> None:
    del known
    read.features["cache_blocks"] = int(found[1])
    read.engine["block_tokens"] = int(found[2])


_KERNELS = "which kernel is used; times are those of the profile"
_ALONE = "not modelled: each token is sent alone"
_PLAIN = "how many are accepted is not stated: plain decoding"
_RULES: tuple[tuple[str, Rule], ...] = (
    (r"max_num_seqs ?=? ?(\d+)", _whole("max_sequences")),
    (r"max_num_seqs ?=? ?concurrency", _sequences_as_load),
    (r"max_batch(?:_size)? ?=? ?(\d+)", _whole("max_sequences")),
    (r"max_running_requests ?=? ?(\d+)", _whole("max_sequences")),
    (r"batch (\d+)(?: per rank)?", _whole("max_sequences")),
    (r"batch (\d+) offline / (\d+) server", _by_mode("max_sequences")),
    (r"batch (\d+)-(\d+)", _range),
    (r"max_num_(?:batched_)?tokens ?=? ?(\d+)", _whole("token_budget")),
    (r"max_num_(?:batched_)?tokens (\d+) offline / (\d+) server", _by_mode("token_budget")),
    (r"max_num_(?:batched_)?tokens ?=? ?(\d+(?:\.\d+)?) ?\* ?ISL", _budget_as_prompt),
    (r"chunked prefill (\d+)", _whole("token_budget")),
    (r"gpu_mem(?:ory)?_util(?:ization)? ?=? ?([01]?\.\d+)", _real("memory_fraction")),
    (r"mem_fraction(?:_static)? ?=? ?([01]?\.\d+)", _real("memory_fraction")),
    (r"free_gpu_mem(?:ory)?_fraction ?=? ?([01]?\.\d+)", _real("memory_fraction")),
    (r"block_size ?=? ?(\d+)", _whole("block_tokens")),
    (r"(\d+) KV blocks of (\d+)", _blocks),
    (r"max_model_len ?=? ?(\d+)", _whole("max_model_tokens")),
    (r"max_concurrency (\d+)", _noted("not used: the row says what is in flight")),
    (r"KV (?:fp8|fp8_e4m3)", _formats(cache="fp8")),
    (r"KV (?:bf16|fp16|auto ?(?:\((?:bf16|fp16)\))?)", _formats(cache="bf16")),
    (r"MXFP4 via Marlin \(w4a16\)", _formats(experts="w4a16_mxfp4")),
    (r"MXFP4 weights x MXFP8 activations(?: \(.*\))?", _formats(experts="w4a8_mxfp4_mxfp8")),
    (r"(?:prefix cach(?:e|ing)|radix cache|block reuse) off", _switch("prefix_caching", on=False)),
    (r"(?:prefix cach(?:e|ing)|radix cache|block reuse) on", _switch("prefix_caching", on=True)),
    (r"chunked prefill on", _nothing),
    (r"other defaults", _nothing),
    (r"defaults \(radix cache on", _switch("prefix_caching", on=True)),
    (r"random prompts\)?", _nothing),
    (r"cuda-graph batch (\d+)", _graph_batch),
    (r"async scheduling", _switch("async_scheduling", on=True)),
    (r"stream_interval (\d+)(?: \(fp4\) / \d+ \(fp8\))?", _noted(_ALONE)),
    (r"MTP (\d+) speculative tokens", _noted(_PLAIN)),
    (r"trtllm-bench throughput", _nothing),
    (r"fused allreduce\+rmsnorm", _noted(_KERNELS)),
    (r"(?:trtllm_mla|flashinfer) attention", _noted(_KERNELS)),
    (r"(?:flashinfer_trtllm MoE|TRTLLM MoE backend)", _noted(_KERNELS)),
    (r"batch_wait .*", _noted("not modelled: prompts would wait for others to share an iteration")),
    (r"max batch and max tokens tuned by NVIDIA", _noted("not published, defaults taken")),
    (r"as (?:H200|NVIDIA).*", _noted("flags of another row, not repeated here: defaults taken")),
)  # fmt: skip
"""Pieces of text and what they say; names of flags as vLLM, SGLang and TensorRT-LLM have them."""
