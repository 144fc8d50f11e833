"""What a GPU kernel does, by its name: a table of rules, the first that fits counts."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Kernels whose name, in lower case, has one of these words belong to a class."""

    name: str
    words: re.Pattern[str]


RULES = (
    Rule("deepep", re.compile(r"deep_ep|deepep")),
    Rule("collective", re.compile(r"nccl|rccl|cross_device_reduce|allreduce|all_reduce|nvshmem")),
    Rule("grouped gemm", re.compile(
        r"group(?:ed)?_?_?gemm|group(?:ed)?_?mm|gemm_?group|groupproblem|ptr_?array|"
        r"fused_moe_kernel|moe_?gemm|moe.*gemm")),
    Rule("attention", re.compile(r"flash|fmha|attention|attn|paged|mla_|_mla")),
    Rule("gemm", re.compile(r"gemm|gemv|cutlass|cublas|xmma|nvjet|matmul|splitk|cijk_|_mm_")),
    Rule("memory copy", re.compile(r"memcpy|memset|catarray|copy_kernel|direct_copy|transpose")),
    Rule("routing", re.compile(r"topk|top_k|moe|permute|histogram|sort|scatter|gather|index")),
    Rule("elementwise", re.compile(
        r"elementwise|vectorized|unrolled|reduce_kernel|norm|softmax|triton_|silu|gelu|act_and|"
        r"rotary|rope|embedding|cast|quant|fill|dropout|adam|multi_tensor")),
)  # fmt: skip
"""Communication first, since its kernels carry names of what they communicate for."""

OTHER = "other"

_CATEGORIES = {"gpu_memcpy": "memory copy", "gpu_memset": "memory copy"}


def kernel_class(name: str, category: str = "kernel") -> str:
    """Return the class of a kernel, or of a copy, whose category says so; `other` at last."""
    if category in _CATEGORIES:
        return _CATEGORIES[category]
    lower = name.lower()
    return next((rule.name for rule in RULES if rule.words.search(lower)), OTHER)
