"""What a reader has to know of the model, and keys that all engines share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moesim.spec.engines.dialect import json_of
from moesim.spec.megatron.reading import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the engine checks its arguments against."""

    heads: int
    layers: int
    experts: int = 0
    """Routed experts of a layer; 0 in a dense model."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """Number formats of the checkpoint, as keys of FormatsSpec."""
    checkpoint: str = ""
    """Its name on Hugging Face."""
    mtp_layers: int = 0
    """Its modules for multi-token prediction."""
    acceptance: tuple[float, ...] | None = None
    """Shares of guesses that are accepted, as who imports says: one, or one by place; empty for
    plain decoding, None where nothing is said."""
    both_sides: bool = False
    """Whether prefill and decode have a command each, of which this is one."""


def switched(reading: Reading, name: str, default: bool | None = None) -> bool | None:
    """Return whether a flag is on: given, given off (`--no-X`, `--X false`), or left out."""
    if name not in reading.given:
        return default
    return (reading.given[name].values or ("true",))[0].lower() != "false"


def positive(reading: Reading, name: str, default: int = 1) -> int:
    """Return a count that is at least 1; another one is a problem."""
    value = reading.count(name, default)
    if value < 1:
        reading.wrong(name, f"must be at least 1, not {value}")
    return max(1, value)


_STEPS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def tokens(reading: Reading, name: str) -> int | None:
    """Return a count such as 8192, 32k (32,000) or 32K (32,768); None where left out or automatic.

    Source: vLLM, human_readable_int (from memory, unchecked).
    """
    text = reading.word(name, "auto")
    step = _STEPS.get(text[-1:], 1)
    digits = text[:-1] if step > 1 else text
    if text in ("auto", "-1"):
        return None
    try:
        value = round(float(digits) * step)
    except ValueError:
        reading.wrong(name, f"must be a whole number such as 8192 or 32K, not '{text}'")
        return None
    if value < 1:
        reading.wrong(name, f"must be at least 1, not {value}")
        return None
    return value


def fraction(reading: Reading, name: str) -> float | None:
    """Return a share in (0, 1]; None where it is left out."""
    if not reading.has(name):
        return None
    value = reading.real(name, 0.5)
    if not 0 < value <= 1:
        reading.wrong(name, f"must be above 0 and at most 1, not {value:g}")
        return None
    return value


def say_else(reading: Reading, name: str, text: str) -> None:
    """Note what became of an argument of which nothing is noted yet."""
    if name not in reading.became:
        reading.say(name, text)


def put_given(reading: Reading, key: str, value: Any, *by: str, why: str = "") -> None:
    """Write a key that an argument says; nothing where it says nothing."""
    if value is not None:
        reading.put(key, value, *by, why=why)


def put_formats(reading: Reading, formats: Mapping[str, str], *by: str, why: str = "") -> None:
    """Write number formats."""
    for key, value in formats.items():
        reading.put(f"serving.formats.{key}", value, *by, why=why)


def put_two_batches(reading: Reading, name: str) -> None:
    """Two half batches, one computing while the other's tokens travel: with attention ranks."""
    ranks = reading.scenario.get("serving.parallel.dp")
    if ranks is not None and ranks.value > 1:
        reading.put("serving.engine.overlap", "two_batch", name)
        return
    reading.say(name, "not modelled: without attention data parallel ranks nothing overlaps")


def check_cut(
    reading: Reading, facts: ModelFacts, tp: tuple[str, int], pp: tuple[str, int]
) -> None:
    """Heads in equal parts, at least a layer a stage."""
    if facts.heads % tp[1]:
        reading.wrong(tp[0], f"must divide the model's {facts.heads} attention heads, not {tp[1]}")
    if pp[1] > facts.layers:
        reading.wrong(pp[0], f"has more stages ({pp[1]}) than the model's {facts.layers} layers")


def object_of(reading: Reading, name: str) -> dict[str, Any]:
    """Return the JSON object that an argument takes; another text is a problem."""
    if not reading.has(name):
        return {}
    data = json_of(reading.word(name, "{}"))
    if isinstance(data, dict):
        return data
    reading.wrong(name, "must be a JSON object, such as '{\"key\": 1}'")
    return {}


def read_quantization(
    reading: Reading, facts: ModelFacts, name: str, known: Mapping[str, Mapping[str, str] | None]
) -> None:
    """Formats of the checkpoint, or of an argument that quantises a 16-bit one while it is read.

    An engine refuses a method that is not the checkpoint's own.
    """
    own = dict(facts.formats)
    if own:
        put_formats(reading, own, why=f"{facts.checkpoint}, as published")
    method = reading.word(name, "none", tuple(known))
    asked = known.get(method)
    if not reading.has(name) or method == "none" or reading.problems:
        reading.say(name, "the checkpoint's own formats")
        return
    if asked is None:
        reading.wrong(name, f"{method} is not modelled")
    elif own and not _same(own, asked):
        said = ", ".join(f"{key} {value}" for key, value in own.items())
        reading.wrong(name, f"{method} is not the checkpoint's own quantisation ({said})")
    elif own:
        reading.say(name, "the checkpoint's own quantisation")
    else:
        put_formats(reading, asked, name)


_CLASS = {"fp8_block128": "fp8", "w4a16_mxfp4": "mxfp4", "w4a8_mxfp4_mxfp8": "mxfp4"}


def _same(own: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    kinds = [{_CLASS.get(one, one) for one in side.values()} - {"bf16"} for side in (own, asked)]
    return kinds[0] == kinds[1] or not kinds[1]


def read_cache(reading: Reading, name: str, automatic: str = "bf16") -> None:
    """The format of keys and values; auto is the checkpoint's or the activations'."""
    kind = reading.word(name, "auto", (
        "auto", "bfloat16", "bf16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc",
        "fp8_ds_mla", "nvfp4", "fp4_e2m1",
    ))  # fmt: skip
    if kind in ("nvfp4", "fp4_e2m1"):
        reading.wrong(name, f"a cache in {kind} is not modelled: use auto, bfloat16 or fp8")
        return
    cache = automatic if kind == "auto" else "fp8" if kind.startswith("fp8") else "bf16"
    if kind == "auto" and cache != "bf16":
        reading.put("serving.formats.cache", cache, why=f"{reading.program}, auto")
    reading.put("serving.formats.cache", cache, *([name] if reading.has(name) else []))
