"""GLM-4.5 and its kin: grouped-query attention around DeepSeek's kind of experts."""

from moesim.model.architecture import Architecture, DenseFfn, FfnKind, Layer
from moesim.model.families.config import Config
from moesim.model.families.deepseek import routed_moe
from moesim.model.families.parts import gqa, network, stack


def glm4_moe(config: Config) -> Architecture:
    """Return a GLM-4.5, GLM-4.5-Air or GLM-4.6."""
    attention = gqa(
        config,
        dim=config.size("head_dim"),
        qkv_bias=config.flag("attention_bias", default=False),  # true in every published GLM-4.5
        qk_norm="per_head" if config.flag("use_qk_norm", default=False) else "none",
    )
    dense = DenseFfn(width=config.size("intermediate_size"))
    moe = routed_moe(config)
    first = config.count("first_k_dense_replace")

    def layer(i: int) -> Layer:
        ffn: FfnKind = dense if i < first else moe
        return Layer(attention=attention, ffn=ffn)

    return network(
        config,
        stack(config.layers("num_hidden_layers"), layer),
        tied=config.flag("tie_word_embeddings", default=False),  # no GLM-4.5 ties them
        mtp_layers=config.optional_count("num_nextn_predict_layers"),
    )
