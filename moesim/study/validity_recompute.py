"""Whether a model has what is to be computed again."""

from moesim.model.architecture import Architecture, LatentAttention, MoeFfn
from moesim.spec.scenario import Scenario


def check_recompute(scenario: Scenario, architecture: Architecture) -> None:
    """Raise ScenarioError where a module is named that no layer of the scenario's model has.

    Megatron-LM refuses mla_up_proj without latent attention and moe modules without experts
    (core/transformer/transformer_config.py, from memory, unchecked). Baselines take the list of
    the scenario whatever they have.
    """
    layers = [run.layer for run in (*architecture.encoder, *architecture.decoder)]
    experts = [layer.ffn for layer in layers if isinstance(layer.ffn, MoeFfn)]
    has = {
        "mla_up_proj": any(isinstance(layer.attention, LatentAttention) for layer in layers),
        "moe": bool(experts),
        "moe_act": bool(experts),
        "shared_experts": any(ffn.shared_width for ffn in experts),
    }
    lacking = [name for name in scenario.training.recompute if not has.get(name, True)]
    if lacking:
        raise scenario.error(
            "training.recompute",
            f"{architecture.name} has no {' and no '.join(lacking)}: nothing would be computed "
            "again; leave it out",
        )
