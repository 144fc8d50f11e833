"""Whether a layout and a batch are possible for a model; says what must divide what."""

from moesim.cost.layout import Layout
from moesim.model.architecture import (
    Architecture,
    AttentionKind,
    GroupedQueryAttention,
    LatentAttention,
    LinearAttention,
    MoeFfn,
    Run,
)
from moesim.spec.scenario import Scenario


def check_model(scenario: Scenario, architecture: Architecture) -> None:
    """Raise ScenarioError where the sequence keys do not fit the kind of model."""
    spec = scenario.training
    if spec.target_length is not None and not architecture.encoder:
        raise scenario.error(
            "training.target_length",
            f"{architecture.name} has no encoder; leave target_length out",
        )
    if architecture.encoder and spec.target_length is None:
        raise scenario.error(
            "training",
            f"{architecture.name} is an encoder-decoder model: give target_length, the tokens "
            "per sequence in the decoder",
        )


def check_layout(scenario: Scenario, architecture: Architecture, layout: Layout, key: str) -> None:
    """Raise ScenarioError where the model cannot be cut as `layout` says."""
    if layout.pp > 1 and architecture.encoder:
        raise scenario.error(
            f"{key}.pp", "pipelines of encoder-decoder models are not modelled; use pp: 1"
        )
    positions = layout.pp * layout.vpp
    if positions > architecture.num_layers:
        raise scenario.error(
            f"{key}.pp",
            f"pp * vpp = {positions} chunks, but {architecture.name} has "
            f"{architecture.num_layers} layers",
        )
    for run in (*architecture.encoder, *architecture.decoder):
        _check_attention(scenario, run.layer.attention, layout, key)
        _check_ffn(scenario, run, layout, key)
    _check_experts(scenario, architecture, layout, key)


def _check_attention(
    scenario: Scenario, attention: AttentionKind, layout: Layout, key: str
) -> None:
    tp = layout.tp
    heads = attention.value_heads if isinstance(attention, LinearAttention) else attention.heads
    if heads % tp:
        raise scenario.error(f"{key}.tp", f"must divide the {heads} attention heads")
    if isinstance(attention, GroupedQueryAttention):
        kv_heads = attention.kv_heads
        if kv_heads % tp and tp % kv_heads:
            raise scenario.error(
                f"{key}.tp", f"must divide the {kv_heads} key/value heads or be a multiple of them"
            )
    if layout.cp > 1 and not isinstance(attention, GroupedQueryAttention | LatentAttention):
        raise scenario.error(
            f"{key}.cp", "context parallelism of linear attention is not modelled; use cp: 1"
        )


def _check_ffn(scenario: Scenario, run: Run, layout: Layout, key: str) -> None:
    ffn = run.layer.ffn
    if isinstance(ffn, MoeFfn):
        if ffn.expert_width % layout.etp:
            raise scenario.error(f"{key}.etp", f"must divide the expert width {ffn.expert_width}")
        widths = [ffn.shared_width, ffn.parallel_dense_width]
    else:
        widths = [ffn.width]
    for width in widths:
        if width % layout.tp:
            raise scenario.error(f"{key}.tp", f"must divide the FFN width {width}")


def _check_experts(
    scenario: Scenario, architecture: Architecture, layout: Layout, key: str
) -> None:
    counts = {
        run.layer.ffn.num_experts
        for run in (*architecture.encoder, *architecture.decoder)
        if isinstance(run.layer.ffn, MoeFfn)
    }
    if layout.ep > 1 and not counts:
        raise scenario.error(f"{key}.ep", f"{architecture.name} has no experts; use ep: 1")
    for count in sorted(counts):
        if count % layout.ep:
            raise scenario.error(f"{key}.ep", f"must divide the {count} experts")
    if counts and layout.tp > 1 and not layout.sequence_parallel:
        raise scenario.error(
            f"{key}.sequence_parallel",
            "experts with tp above 1 need sequence_parallel: true, as in Megatron-LM",
        )


def check_batch(scenario: Scenario, layout: Layout, key: str) -> int:
    """Return the micro-batches per step and rank; ScenarioError where they are no whole number."""
    spec = scenario.training
    at_once = spec.micro_batch * layout.dp
    if spec.global_batch % at_once:
        raise scenario.error(
            "training.global_batch",
            f"must be a multiple of micro_batch * dp = {spec.micro_batch} * {layout.dp} "
            f"= {at_once}",
        )
    for length in (spec.sequence_length, spec.target_length):
        if length is not None and length % layout.cp:
            raise scenario.error(f"{key}.cp", f"must divide the {length} tokens of a sequence")
        local = spec.micro_batch * (length or spec.sequence_length) // layout.cp
        if layout.sequence_parallel and local % layout.tp:
            raise scenario.error(
                f"{key}.tp", f"must divide the {local} tokens of a micro-batch (sequence_parallel)"
            )
    micro_batches = spec.global_batch // at_once
    if layout.vpp > 1 and micro_batches % layout.pp:
        raise scenario.error(
            f"{key}.vpp",
            f"interleaving needs micro-batches in multiples of pp = {layout.pp}; there are "
            f"{micro_batches}",
        )
    return micro_batches
