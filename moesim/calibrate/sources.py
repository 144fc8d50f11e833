"""Where published measurement tables come from, by the key in their column `source`."""

SOURCES = {
    "aiconfigurator": "ai-dynamo/aiconfigurator @095f58a51c4c, collected tables",
    "vidur": "microsoft/vidur @7d475133, data/profiling",
    "frontier": "NetX-lab/Frontier @a4b22df8, data/profiling",
    "infersim": "alibaba/InferSim @f2293dab, bench_data",
    "llmservingsim": "casys-kaist/LLMServingSim @5daddb21, profiler/v0/perf_models",
    "llmcompass": "PrincetonUniversity/LLMCompass @2e015fd2, ae/figure5",
    "deepgemm": "deepseek-ai/DeepGEMM @989c9e3, README tables",
    "deepep_docs": "deepseek-ai/DeepEP @dd758caf, docs/legacy.md and README tables",
    "ml_engineering": "stas00/ml-engineering @744d01e, network/README.md",
    "ml_engineering_mamf": "stas00/ml-engineering @744d01e, compute/accelerator/README.md",
    "pplx_kernels": "perplexityai/pplx-kernels @2bd6e30f, README tables",
    "uccl": "uccl-project/uccl @da914a20, ep/README.md tables",
    "mori": "ROCm/mori @624002c8, README tables",
    "aws_distributed_ai": "awslabs/awsome-distributed-ai @95b939cd, micro-benchmarks",
    "aws_distributed_training": "awslabs/awsome-distributed-training @0edaf152, nccl-tests",
    "coreweave_nccl_tests": "coreweave/nccl-tests @cb865533, README tables",
    "accelerator_microbenchmarks": "AI-Hypercomputer/accelerator-microbenchmarks @ee16a1c",
}
"""Repository and commit of each published table."""


def described(keys: tuple[str, ...]) -> str:
    """Return the sources `keys` in words; an unknown key stands for itself."""
    return "; ".join(SOURCES.get(key, key) for key in keys)
