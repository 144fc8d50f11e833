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
from moesim.moe.groups import Tokens, group_tokens
from moesim.spec.scenario import Scenario
from moesim.study.router_rules import capacity_rule, check_routing
from moesim.study.validity_chunks import check_chunks, check_overlap

MAX_LAYERS = 2000
MAX_EXPERTS = 2**16
MAX_EXPERTS_OF_ALL_LAYERS = 2**22
MAX_MICRO_BATCH_TOKENS = 10**9
MAX_PASSES = 10**6
MAX_PASSES_OF_ALL_STEPS = 10**7
MAX_DRAWS = 10**6
MAX_GROUP_TOKENS = 2**22
"""What is simulated at most, so that no scenario takes all memory or days."""


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
    if layout.cp > 1 and architecture.encoder:
        raise scenario.error(
            f"{key}.cp", "context parallelism of encoder-decoder models is not modelled; use cp: 1"
        )
    check_chunks(scenario, architecture, layout, key)
    check_overlap(scenario, architecture, layout, key)
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
    if layout.cp > 1 and layout.cp_comm == "all_to_all":
        _check_heads_apart(scenario, attention, layout, key)
    if layout.cp > 1 and not isinstance(attention, GroupedQueryAttention | LatentAttention):
        raise scenario.error(
            f"{key}.cp", "context parallelism of linear attention is not modelled; use cp: 1"
        )


def _check_heads_apart(
    scenario: Scenario, attention: AttentionKind, layout: Layout, key: str
) -> None:
    if isinstance(attention, LatentAttention) and attention.indexer:
        raise scenario.error(
            f"{key}.cp_comm", "all_to_all of attention behind an index is not modelled"
        )
    heads = attention.value_heads if isinstance(attention, LinearAttention) else attention.heads
    if heads // layout.tp % layout.cp:
        raise scenario.error(
            f"{key}.cp_comm",
            f"all_to_all spreads heads: tp * cp = {layout.tp * layout.cp} must divide the {heads} "
            "attention heads",
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
    check_routing(scenario, architecture)
    load = scenario.routing.load
    for count in sorted(counts):
        if load.law == "dirichlet" and max(load.cv, default=0.0) >= (count - 1) ** 0.5:
            raise scenario.error(
                "routing.load.cv",
                f"shares of {count} experts under a dirichlet law vary by less than "
                f"{(count - 1) ** 0.5:.3g} (all on one expert); use less, or lognormal",
            )
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
    if layout.schedule == "interleaved" and micro_batches % layout.pp:
        raise scenario.error(
            f"{key}.vpp",
            f"interleaving needs micro-batches in multiples of pp = {layout.pp}; there are "
            f"{micro_batches}",
        )
    return micro_batches


def check_effort(
    scenario: Scenario, architecture: Architecture, layout: Layout, micro_batches: int
) -> None:
    """Raise ScenarioError where simulating would take too much time or memory."""
    _check_size(scenario, architecture)
    spec, steps = scenario.training, scenario.training.steps
    tokens = spec.micro_batch * max(spec.sequence_length, spec.target_length or 0)
    if tokens > MAX_MICRO_BATCH_TOKENS:
        raise scenario.error(
            "training.micro_batch",
            f"micro_batch * sequence_length is {tokens:,} tokens; at most "
            f"{MAX_MICRO_BATCH_TOKENS:,} are simulated",
        )
    passes = 2 * micro_batches * layout.vpp * layout.pp
    if passes > MAX_PASSES:
        raise scenario.error(
            "training.global_batch",
            f"makes {micro_batches:,} micro-batches, so {passes:,} forward and backward passes "
            f"of stages; at most {MAX_PASSES:,} are simulated. Take a smaller global_batch, a "
            "larger micro_batch or more devices",
        )
    random = architecture.is_moe and scenario.routing.load.law != "even"
    if random and steps * passes > MAX_PASSES_OF_ALL_STEPS:
        raise scenario.error(
            "training.steps",
            f"{steps:,} steps of {passes:,} passes of stages are more than the "
            f"{MAX_PASSES_OF_ALL_STEPS:,} that are simulated",
        )
    if random:
        _check_draws(scenario, architecture, layout, tokens)


def _check_size(scenario: Scenario, architecture: Architecture) -> None:
    layers = architecture.num_layers + architecture.mtp_layers
    if layers > MAX_LAYERS:
        raise scenario.error(
            "model", f"has {layers:,} layers; at most {MAX_LAYERS:,} are simulated"
        )
    runs = (*architecture.encoder, *architecture.decoder)
    experts = [
        (run.layer.ffn.num_experts, run.count) for run in runs if isinstance(run.layer.ffn, MoeFfn)
    ]
    if experts and max(number for number, _ in experts) > MAX_EXPERTS:
        raise scenario.error("model", f"has more than {MAX_EXPERTS:,} experts in a layer")
    if sum(number * layers for number, layers in experts) > MAX_EXPERTS_OF_ALL_LAYERS:
        raise scenario.error(
            "model", f"has more than {MAX_EXPERTS_OF_ALL_LAYERS:,} experts in all layers"
        )


def _check_draws(
    scenario: Scenario, architecture: Architecture, layout: Layout, tokens: int
) -> None:
    """Raise ScenarioError where routing draws too often, or for too many tokens at once."""
    capacity = scenario.routing.capacity
    local = tokens // layout.cp // (layout.tp if layout.sequence_parallel else 1)
    ranks, local = layout.ep * layout.etp, max(1, local)
    together, group = local * ranks, local
    rule = capacity_rule(scenario.routing)
    if rule is not None:
        length = scenario.training.sequence_length
        group = group_tokens(rule, Tokens(sequence=length, rank=local, ep_ranks=ranks))
    if capacity and group > MAX_GROUP_TOKENS:
        raise scenario.error(
            "routing.capacity.group_tokens",
            f"{group:,} tokens are routed together; at most {MAX_GROUP_TOKENS:,} with a capacity "
            "and random loads. Give group_tokens",
        )
    draws = scenario.training.steps * architecture.num_layers * min(together // group, 2**17)
    if draws > MAX_DRAWS:
        raise scenario.error(
            "routing.capacity.group_tokens" if capacity else "training.steps",
            f"{draws:,} groups of tokens would be routed in all steps and layers; at most "
            f"{MAX_DRAWS:,} are simulated",
        )
