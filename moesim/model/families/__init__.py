"""From a parsed config.json to an Architecture: one explicit function per model_type.

The same key means different things in different families, so nothing is searched for by likely
names; a model_type that is not in the table is refused.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from moesim.model.architecture import Architecture
from moesim.model.families.config import Config
from moesim.model.families.deepseek import deepseek, deepseek_sparse, deepseek_v4
from moesim.model.families.gemma import gemma4
from moesim.model.families.glm import glm4_moe
from moesim.model.families.gpt_oss import gpt_oss
from moesim.model.families.llama import llama, llama4, mistral
from moesim.model.families.minimax import minimax, minimax_m2
from moesim.model.families.mixtral import dbrx, mixtral, olmoe, phimoe
from moesim.model.families.nllb import nllb_moe
from moesim.model.families.qwen import qwen2, qwen2_moe, qwen3, qwen3_moe
from moesim.model.families.qwen_next import qwen3_5_moe, qwen3_next
from moesim.model.families.t5 import switch_transformers, t5

Family = Callable[[Config], Architecture]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "dbrx": dbrx,
        "deepseek_v2": deepseek,
        "deepseek_v3": deepseek,
        "deepseek_v32": deepseek_sparse,
        "deepseek_v4": deepseek_v4,
        "gemma4": gemma4,
        "gemma4_text": gemma4,
        "glm4_moe": glm4_moe,
        "glm_moe_dsa": deepseek_sparse,
        "gpt_oss": gpt_oss,
        "kimi_k2": deepseek,
        "llama": llama,
        "llama4": llama4,
        "llama4_text": llama4,
        "minimax": minimax,
        "minimax_m1": minimax,
        "minimax_m2": minimax_m2,
        "minimax_text_01": minimax,
        "mistral": mistral,
        "mixtral": mixtral,
        "nllb-moe": nllb_moe,
        "olmoe": olmoe,
        "phimoe": phimoe,
        "qwen2": qwen2,
        "qwen2_moe": qwen2_moe,
        "qwen3": qwen3,
        "qwen3_5_moe": qwen3_5_moe,
        "qwen3_5_moe_text": qwen3_5_moe,
        "qwen3_moe": qwen3_moe,
        "qwen3_next": qwen3_next,
        "switch_transformers": switch_transformers,
        "t5": t5,
    }
)

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "DeepseekV2ForCausalLM": "deepseek_v2",
        "DeepseekV32ForCausalLM": "deepseek_v32",
        "DeepseekV3ForCausalLM": "deepseek_v3",
        "DeepseekV4ForCausalLM": "deepseek_v4",
        "Glm4MoeForCausalLM": "glm4_moe",
        "GlmMoeDsaForCausalLM": "glm_moe_dsa",
    }
)
"""Class names that decide where model_type misleads, as in copies of GLM-4.5 that say `glm`."""
