"""DeepSeek-V2, V3 and V3.2, and what copies their layout: Kimi-K2 and GLM-5."""

from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    FfnKind,
    LatentAttention,
    Layer,
    MoeFfn,
    SparseIndexer,
)
from moesim.model.families.config import Config
from moesim.model.families.parts import network, stack


def deepseek(config: Config) -> Architecture:
    """Return a DeepSeek-V2 or V3 (also Kimi-K2): latent attention, shared experts."""
    return _latent_moe(config, _latent_attention(config, None))


def deepseek_sparse(config: Config) -> Architecture:
    """Return a DeepSeek-V3.2 or GLM-5: the same with an indexer that picks tokens to attend to."""
    if config.words("indexer_types") or config.first("index_topk_pattern")[1] is not None:
        _refuse_shared_indexers(config)
    if config.optional_size("index_topk_freq") not in (None, 1):
        config.fail("index_topk_freq", "layers that share an indexer are not modelled")
    indexer = SparseIndexer(
        heads=config.size("index_n_heads"),
        head_dim=config.size("index_head_dim"),
        top_k=config.size("index_topk"),
    )
    return _latent_moe(config, _latent_attention(config, indexer))


def deepseek_v4(config: Config) -> Architecture:
    """Refuse DeepSeek-V4: hyper-connections and compressed attention have no record here."""
    config.fail(
        "compress_ratios",
        "attention over compressed tokens, and hyper-connections ('hc_mult'), are not modelled",
    )


def _refuse_shared_indexers(config: Config) -> None:
    pattern = config.words("indexer_types") or tuple(config.text("index_topk_pattern"))
    if any(word.lower().startswith("s") for word in pattern):
        config.fail("indexer_types", "layers that share an indexer are not modelled")


def _latent_attention(config: Config, indexer: SparseIndexer | None) -> LatentAttention:
    if "q_lora_rank" not in config.data:
        # Null says that queries are not compressed; absence says nothing.
        config.fail("q_lora_rank", "is missing; null means that queries have no low rank")
    return LatentAttention(
        heads=config.size("num_attention_heads"),
        q_lora_rank=config.optional_size("q_lora_rank"),
        kv_lora_rank=config.size("kv_lora_rank"),
        qk_nope_head_dim=config.size("qk_nope_head_dim"),
        qk_rope_head_dim=config.size("qk_rope_head_dim"),
        v_head_dim=config.size("v_head_dim"),
        bias=config.flag("attention_bias", default=False),  # stated by every model that has them
        indexer=indexer,
    )


def _latent_moe(config: Config, attention: LatentAttention) -> Architecture:
    dense = DenseFfn(width=config.size("intermediate_size"))
    moe = routed_moe(config)
    first = config.count("first_k_dense_replace")
    # Absent in files written by transformers v5, where every later layer has experts.
    every = config.optional_size("moe_layer_freq") or 1

    def layer(i: int) -> Layer:
        ffn: FfnKind = moe if i >= first and i % every == 0 else dense
        return Layer(attention=attention, ffn=ffn)

    return network(
        config,
        stack(config.layers("num_hidden_layers"), layer),
        tied=config.flag("tie_word_embeddings", default=False),  # none of the lineage ties them
        mtp_layers=config.optional_count("num_nextn_predict_layers"),
    )


def routed_moe(config: Config) -> MoeFfn:
    """Return the experts of the lineage; shared experts are as wide as routed ones."""
    width = config.size("moe_intermediate_size")
    groups = config.optional_size("n_group") or 1  # absent or null: no groups
    limited = groups > 1 and config.text("topk_method") != "greedy"
    return MoeFfn(
        num_experts=config.size("n_routed_experts", "num_experts", "num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        expert_width=width,
        shared_width=width * config.optional_count("n_shared_experts"),  # null: none
        groups=groups if limited else 1,
        groups_per_token=config.size("topk_group") if limited else 1,
        group_best=1 if limited and config.text("topk_method") == "group_limited_greedy" else 2,
    )
