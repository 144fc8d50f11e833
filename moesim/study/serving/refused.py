"""What a serving scenario may say and is not simulated yet: an error, never passed over."""

from moesim.cost.serving.context import most_ranks
from moesim.cost.serving.deployment import Deployment
from moesim.errors import ScenarioError
from moesim.model.architecture import (
    GroupedQueryAttention,
    LatentAttention,
    LinearAttention,
    MoeFfn,
)
from moesim.study.serving.encoders import refuse_encoder
from moesim.study.serving.pools import Engine
from moesim.study.serving.resolve import Serving


def refuse(run: Serving) -> None:
    """Raise ScenarioError for what this run asks for and would not get."""
    refuse_encoder(run.scenario, run.deployment.architecture)
    drafting = run.deployment.drafting
    if drafting is not None and drafting.model is not None and drafting.model.architecture.encoder:
        raise run.scenario.error(
            "serving.engine.speculative.draft_model",
            f"{drafting.model.architecture.name} has an encoder: guessing with it is not modelled",
        )
    for pool in run.pools:
        if pool.engine.deployment.cut.ffn:
            _refuse_apart(run, pool.engine.deployment)
        _refuse_cut(run, pool.engine)


def _refuse_cut(run: Serving, engine: Engine) -> None:
    """Raise ScenarioError where heads or experts cannot be spread evenly."""
    cut, architecture = engine.deployment.cut, engine.deployment.architecture
    if cut.pp > architecture.num_layers:
        raise run.scenario.error(
            "serving.parallel.pp",
            f"must be at most the {architecture.num_layers} layers of {architecture.name}",
        )
    for layer in (one.layer for one in (*architecture.encoder, *architecture.decoder)):
        attention, ffn = layer.attention, layer.ffn
        if isinstance(attention, GroupedQueryAttention | LatentAttention) and (
            attention.heads % cut.tp
        ):
            raise _uneven(run, "tp", f"the {attention.heads} attention heads")
        if cut.dcp > 1:
            _refuse_spread(run, attention, engine.deployment)
        if isinstance(ffn, MoeFfn) and (ffn.num_experts + cut.redundant_experts) % cut.ep:
            copies = f" and {cut.redundant_experts} copies" if cut.redundant_experts else ""
            raise _uneven(run, "ep", f"the {ffn.num_experts} experts{copies} of a layer")
    if cut.ep > 1 and not architecture.is_moe:
        raise run.scenario.error("serving.parallel.ep", f"{architecture.name} has no experts")


def _refuse_apart(run: Serving, on: Deployment) -> None:
    """Raise ScenarioError for what is not modelled of attention and networks on devices apart."""
    error, cut = run.scenario.error, on.cut
    if not on.architecture.is_moe:
        raise error("serving.cluster.disaggregation", f"{on.architecture.name} has no experts")
    if cut.pp > 1:
        raise error("serving.parallel.pp", "above 1 is not modelled with attention_ffn")
    if on.drafting is not None:
        raise error("serving.engine.speculative", "is not modelled with attention_ffn")
    if on.offload is not None:
        raise error("serving.offload", "is not modelled with attention_ffn")
    if on.overlap != "none":
        raise error("serving.engine.overlap", "leave it at none: micro-batches overlap here")
    if run.scenario.serving.parallel.exchange is not None:
        raise error(
            "serving.parallel.exchange", "leave it out: attention_ffn has an exchange of its own"
        )


def _refuse_spread(
    run: Serving, attention: GroupedQueryAttention | LatentAttention | LinearAttention,
    on: Deployment,
) -> None:  # fmt: skip
    """Raise ScenarioError where the cache of an attention cannot be spread over dcp ranks.

    Source: vLLM, docs, context_parallel_deployment: dcp from 1 to tp / key/value heads (from
    memory, unchecked).
    """
    key, cut, other = "serving.parallel.dcp", on.cut, None
    if isinstance(attention, LinearAttention):
        other = "linear attention"
    elif isinstance(attention, GroupedQueryAttention) and attention.window:
        other = "sliding windows"
    elif isinstance(attention, LatentAttention) and attention.indexer is not None:
        other = "attention to indexed tokens"
    elif on.drafting is not None:
        other = "speculative decoding"
    if other is not None:
        raise run.scenario.error(key, f"above 1 is not modelled with {other}; use dcp: 1")
    assert not isinstance(attention, LinearAttention)
    most = most_ranks(attention, cut.tp)
    if cut.dcp > most:
        raise run.scenario.error(
            key,
            f"must be at most {most}: so many of the tp = {cut.tp} ranks hold the same cache of "
            f"{on.architecture.name}",
        )


def _uneven(run: Serving, key: str, what: str) -> ScenarioError:
    return run.scenario.error(f"serving.parallel.{key}", f"must divide {what}")
