"""What an engine does otherwise for a model with an encoder, and what of it is not simulated."""

from collections.abc import Iterator
from dataclasses import replace

from moesim.errors import ScenarioError
from moesim.model.architecture import Architecture, GroupedQueryAttention, Layer
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.engines import Preset, Resolved

_WHY = "an encoder reads a prompt whole, to both sides"
_KEPT = "the cache of a prompt cannot be grown by what was put out: nobody is preempted"

ASSUMED = (
    "A prompt passes the encoder whole in the iteration that also gives its first output token, "
    "and those that decode wait for it; the decoder begins with one start token, and a forced "
    "language tag is the first of the output.",
    "Keys and values of cross-attention, projected once from the encoder's output, take a token's "
    "place in the cache for each token of the prompt, in the same blocks as those of the output.",
    "Self-attention and cross-attention of a decode step are priced as one kernel over the tokens "
    "of both, and one over a single token.",
    "Positions cost what a rotation does: tables of relative positions and sinusoids are not "
    "priced apart.",
)
"""What serving with an encoder takes for granted."""


def for_encoder(preset: Preset, architecture: Architecture) -> Preset:
    """Return the defaults of an engine for this model: as they are where it has no encoder.

    With one, prompts are computed whole, nothing of them is found in a prefix cache (every token's
    state depends on those behind it), and a request only begins where all of it has room.
    """
    if not architecture.encoder:
        return preset
    forced: dict[str, tuple[str | bool, str]] = {
        "batching": ("whole_prompts", _WHY), "chunked_prefill": (False, _WHY),
        "prefix_cache": (False, _WHY), "reserve_output": (True, _KEPT),
        "habit": ("decoding first, prompts whole through the encoder; nobody is preempted", _WHY),
    }  # fmt: skip
    shown = tuple(
        Resolved(one.name, *forced[one.name]) if one.name in forced else one
        for one in preset.resolved
    )
    return replace(
        preset, batching="whole_prompts", chunked_prefill=False, prefix_cache=False,
        reserve_output=True, habit=str(forced["habit"][0]), resolved=shown,
    )  # fmt: skip


def refuse_encoder(scenario: ServingScenario, architecture: Architecture) -> None:
    """Raise ScenarioError for what is not simulated of a model with an encoder."""
    if not architecture.encoder:
        return
    found = [*_asked(scenario), *_shape(architecture)]
    if found:
        raise ScenarioError(
            scenario.error(key, f"{architecture.name} has an encoder: {why}").problems[0]
            for key, why in found
        )


def _asked(scenario: ServingScenario) -> Iterator[tuple[str, str]]:
    """Yield keys of the scenario that contradict an encoder, and what is allowed."""
    serving = scenario.serving
    engine, cut, among = serving.engine, serving.parallel, serving.cluster
    if engine.batching in ("mixed", "prefill_first"):
        yield (
            "serving.engine.batching",
            f"it reads a prompt whole, so {engine.batching} cannot cut it into chunks; "
            "whole_prompts or static",
        )
    if engine.prefix_caching:
        yield (
            "serving.engine.prefix_caching",
            "each token of a prompt depends on those behind it, so no beginning can be kept; "
            "leave it out",
        )
    if engine.reserve_output is False:
        yield "serving.engine.reserve_output", "preemption is not modelled for it; leave it out"
    if engine.speculative is not None:
        yield "serving.engine.speculative", "guessed tokens are not modelled for it"
    if cut.dp > 1 or cut.pp > 1:
        key = "dp" if cut.dp > 1 else "pp"
        yield f"serving.parallel.{key}", f"{key} above 1 is not modelled for it; use tp and ep"
    if among.prefill is not None:
        yield "serving.cluster.disaggregation", "prompts and decoding apart are not modelled for it"
    if among.failures is not None:
        yield "serving.cluster.failures", "failures are not modelled for it"


def _shape(architecture: Architecture) -> Iterator[tuple[str, str]]:
    """Yield why keys and values of prompts and outputs cannot share one cache."""
    if not all(_alike(one.layer) for one in architecture.decoder):
        yield (
            "model",
            "decoder layers whose cross-attention has other key/value heads than their "
            "self-attention, or a window, are not modelled",
        )
    kinds = [one.layer.attention for one in architecture.encoder]
    if not all(isinstance(k, GroupedQueryAttention) and k.window is None for k in kinds):
        yield "model", "only grouped-query attention over whole prompts is modelled in it"


def _alike(layer: Layer) -> bool:
    own, cross = layer.attention, layer.cross_attention
    if not isinstance(own, GroupedQueryAttention) or cross is None:
        return False
    widths = {(kind.kv_heads, kind.head_dim, kind.window) for kind in (own, cross)}
    return len(widths) == 1 and own.window is None
