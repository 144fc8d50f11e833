"""Published config.json contents, cut down to the keys that decide sizes, with exact counts.

The counts are those of the model classes of transformers 5.23.0, built without weights.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """A config and its parameters: all, in routed experts, met by one token."""

    config: dict[str, Any]
    total: int
    routed: int = 0
    active: int = field(default=0)


def _rope_moe(
    model_type: str, sizes: tuple[int, int, int, int, int], **more: Any
) -> dict[str, Any]:
    hidden, layers, heads, kv_heads, vocab = sizes
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        **more,
    }


_LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}

KNOWN: dict[str, Known] = {
    "mixtral-8x7b": Known(
        _rope_moe(
            "mixtral",
            (4096, 32, 32, 8, 32000),
            intermediate_size=14336,
            num_local_experts=8,
            num_experts_per_tok=2,
        ),
        46_702_792_704,
        45_097_156_608,
        12_879_925_248,
    ),
    "olmoe-1b-7b": Known(
        _rope_moe(
            "olmoe",
            (2048, 16, 16, 16, 50304),
            intermediate_size=1024,
            num_experts=64,
            num_experts_per_tok=8,
        ),
        6_919_161_856,
        6_442_450_944,
        1_282_017_280,
    ),
    "phi-mini-moe": Known(
        _rope_moe(
            "phimoe",
            (4096, 32, 32, 8, 32064),
            head_dim=128,
            intermediate_size=960,
            num_local_experts=16,
            num_experts_per_tok=2,
            attention_bias=True,
            lm_head_bias=True,
        ),
        7_647_632_704,
        6_039_797_760,
        2_362_809_664,
    ),
    "dbrx": Known(
        {
            "model_type": "dbrx",
            "d_model": 6144,
            "n_heads": 48,
            "n_layers": 40,
            "vocab_size": 100352,
            "attn_config": {"kv_n_heads": 8, "top_k": 50},
            "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
        },
        131_596_523_520,
        126_835_752_960,
        36_469_708_800,
    ),
    "deepseek-v3": Known(
        _rope_moe(
            "deepseek_v3",
            (7168, 61, 128, 128, 129280),
            **_LATENT,
            q_lora_rank=1536,
            intermediate_size=18432,
            moe_intermediate_size=2048,
            n_routed_experts=256,
            n_shared_experts=1,
            num_experts_per_tok=8,
            first_k_dense_replace=3,
            n_group=8,
            topk_group=4,
            num_nextn_predict_layers=1,
        ),
        671_026_404_352,
        653_908_770_816,
        37_552_282_624,
    ),
    "deepseek-v2-lite": Known(
        _rope_moe(
            "deepseek_v2",
            (2048, 27, 16, 16, 102400),
            **_LATENT,
            q_lora_rank=None,
            intermediate_size=10944,
            moe_intermediate_size=1408,
            n_routed_experts=64,
            n_shared_experts=2,
            num_experts_per_tok=6,
            first_k_dense_replace=1,
        ),
        15_706_484_224,
        14_394_851_328,
        2_661_150_208,
    ),
    "glm-4.5": Known(
        _rope_moe(
            "glm",  # as some copies say; the class name decides
            (5120, 92, 96, 8, 151552),
            architectures=["Glm4MoeForCausalLM"],
            head_dim=128,
            attention_bias=True,
            use_qk_norm=True,
            intermediate_size=12288,
            moe_intermediate_size=1536,
            n_routed_experts=160,
            n_shared_experts=1,
            num_experts_per_tok=8,
            first_k_dense_replace=3,
        ),
        352_797_814_784,
        335_963_750_400,
        33_632_251_904,
    ),
    "glm-5": Known(
        _rope_moe(
            "glm_moe_dsa",
            (6144, 78, 64, 64, 154880),
            kv_lora_rank=512,
            q_lora_rank=2048,
            qk_nope_head_dim=192,
            qk_rope_head_dim=64,
            v_head_dim=256,
            index_n_heads=32,
            index_head_dim=128,
            index_topk=2048,
            intermediate_size=12288,
            moe_intermediate_size=2048,
            n_routed_experts=256,
            n_shared_experts=1,
            num_experts_per_tok=8,
            first_k_dense_replace=3,
        ),
        743_911_199_232,
        724_775_731_200,
        41_784_709_632,
    ),
    "qwen3-30b-a3b": Known(
        _rope_moe(
            "qwen3_moe",
            (2048, 48, 32, 4, 151936),
            head_dim=128,
            moe_intermediate_size=768,
            num_experts=128,
            num_experts_per_tok=8,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
        30_532_122_624,
        28_991_029_248,
        3_353_032_704,
    ),
    "qwen2-57b-a14b": Known(
        _rope_moe(
            "qwen2_moe",
            (3584, 28, 28, 4, 151936),
            moe_intermediate_size=2560,
            shared_expert_intermediate_size=20480,
            num_experts=64,
            num_experts_per_tok=8,
        ),
        57_408_658_944,
        49_325_015_040,
        14_249_270_784,
    ),
    "qwen3-next-80b-a3b": Known(
        _rope_moe(
            "qwen3_next",
            (2048, 48, 16, 2, 151936),
            head_dim=256,
            full_attention_interval=4,
            linear_conv_kernel_dim=4,
            linear_key_head_dim=128,
            linear_num_key_heads=16,
            linear_num_value_heads=32,
            linear_value_head_dim=128,
            moe_intermediate_size=512,
            shared_expert_intermediate_size=512,
            num_experts=512,
            num_experts_per_tok=10,
        ),
        79_674_391_296,
        77_309_411_328,
        3_874_929_408,
    ),
    "qwen3-8b": Known(
        _rope_moe("qwen3", (4096, 36, 32, 8, 151936), head_dim=128, intermediate_size=12288),
        8_190_735_360,
        0,
        8_190_735_360,
    ),
    "llama-3.1-8b": Known(
        _rope_moe("llama", (4096, 32, 32, 8, 128256), intermediate_size=14336),
        8_030_261_248,
        0,
        8_030_261_248,
    ),
    "llama-4-maverick": Known(
        {
            "model_type": "llama4",
            "text_config": _rope_moe(
                "llama4_text",
                (5120, 48, 40, 8, 202048),
                head_dim=128,
                attention_chunk_size=8192,
                intermediate_size=8192,
                intermediate_size_mlp=16384,
                interleave_moe_layer_step=2,
                num_local_experts=128,
                num_experts_per_tok=1,
            ),
        },
        400_711_848_960,
        386_547_056_640,
        17_184_691_200,
    ),
    "gpt-oss-20b": Known(
        _rope_moe(
            "gpt_oss",
            (2880, 24, 64, 8, 201088),
            head_dim=64,
            attention_bias=True,
            intermediate_size=2880,
            num_local_experts=32,
            experts_per_token=4,  # the older spelling
            sliding_window=128,
            layer_types=["sliding_attention", "full_attention"] * 12,
        ),
        20_914_757_184,
        19_116_933_120,
        4_187_440_704,
    ),
    "minimax-m2.5": Known(
        _rope_moe(
            "minimax_m2",
            (3072, 62, 48, 8, 200064),
            head_dim=128,
            intermediate_size=1536,
            num_local_experts=256,
            num_experts_per_tok=8,
            use_qk_norm=True,
            qk_norm_type="per_layer",
        ),
        228_689_748_992,
        224_680_476_672,
        11_030_537_216,
    ),
    "gemma-4-26b-a4b": Known(  # less the 572,792,112 of the vision tower
        {
            "model_type": "gemma4",
            "text_config": _rope_moe(
                "gemma4_text",
                (2816, 30, 16, 8, 262144),
                head_dim=256,
                global_head_dim=512,
                num_global_key_value_heads=2,
                attention_k_eq_v=True,
                enable_moe_block=True,
                intermediate_size=2112,
                moe_intermediate_size=704,
                num_experts=128,
                top_k_experts=8,
                sliding_window=1024,
                layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 5,
            ),
            "tie_word_embeddings": True,
        },
        25_805_933_872 - 572_792_112,
        22_837_985_280,
        4_395_322_672 - 572_792_112,
    ),
    # The next three are transformers' class defaults, not published models.
    "switch-transformers-class": Known(
        {
            "model_type": "switch_transformers",
            "vocab_size": 32128,
            "d_model": 768,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 12,
            "num_sparse_encoder_layers": 3,
            "num_decoder_layers": 12,
            "num_sparse_decoder_layers": 3,
            "num_heads": 12,
            "num_experts": 8,
            "relative_attention_num_buckets": 32,
            "dense_act_fn": "relu",
        },
        317_312_256,
        150_994_944,
        317_312_256 - 150_994_944 * 7 // 8,
    ),
    "t5-class": Known(
        {
            "model_type": "t5",
            "vocab_size": 32128,
            "d_model": 512,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 6,
            "num_heads": 8,
            "relative_attention_num_buckets": 32,
            "feed_forward_proj": "relu",
        },
        60_506_624,
        0,
        60_506_624,
    ),
    "nllb-moe-class": Known(
        {
            "model_type": "nllb-moe",
            "vocab_size": 128112,
            "d_model": 1024,
            "num_experts": 128,
            **{
                f"{side}_{key}": value
                for side in ("encoder", "decoder")
                for key, value in {
                    "layers": 12,
                    "ffn_dim": 4096,
                    "attention_heads": 16,
                    "sparse_step": 4,
                }.items()
            },
        },
        6_880_712_704,
        6_446_383_104,
        6_880_712_704 - 6_446_383_104 * 126 // 128,
    ),
}
