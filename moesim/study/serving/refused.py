"""What a serving scenario may say and is not simulated yet: an error, never passed over."""

from moesim.errors import ScenarioError
from moesim.model.architecture import GroupedQueryAttention, LatentAttention, MoeFfn
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
        _refuse_cut(run, pool.engine)


def _refuse_cut(run: Serving, engine: Engine) -> None:
    """Raise ScenarioError where heads or experts cannot be spread evenly."""
    cut, architecture = engine.deployment.cut, engine.deployment.architecture
    for layer in (one.layer for one in (*architecture.encoder, *architecture.decoder)):
        attention, ffn = layer.attention, layer.ffn
        if isinstance(attention, GroupedQueryAttention | LatentAttention) and (
            attention.heads % cut.tp
        ):
            raise _uneven(run, "tp", f"the {attention.heads} attention heads")
        if isinstance(ffn, MoeFfn) and (ffn.num_experts + cut.redundant_experts) % cut.ep:
            copies = f" and {cut.redundant_experts} copies" if cut.redundant_experts else ""
            raise _uneven(run, "ep", f"the {ffn.num_experts} experts{copies} of a layer")
    if cut.ep > 1 and not architecture.is_moe:
        raise run.scenario.error("serving.parallel.ep", f"{architecture.name} has no experts")


def _uneven(run: Serving, key: str, what: str) -> ScenarioError:
    return run.scenario.error(f"serving.parallel.{key}", f"must divide {what}")
