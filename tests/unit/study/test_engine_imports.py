"""Command lines of engines become the scenarios that one would write by hand."""

from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.spec.engines.read import DIALECTS, EngineSource, engine_fates
from moesim.spec.yaml_text import read_yaml
from moesim.study.engine_imports import EngineImport, import_engine
from moesim.study.engine_workload import Wanted

DEEPSEEK = "vllm serve deepseek-ai/DeepSeek-V3 -tp 1 -dp 8 --enable-expert-parallel"
SGLANG = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8"
TRTLLM = "mpirun -n 1 trtllm-serve nvidia/DeepSeek-R1-0528-FP4 --tp_size=8 --ep_size=8"


def imported(engine: str, text: str, **more: Any) -> EngineImport:
    options = more.pop("options", None)
    source = EngineSource(engine=engine, text=text, options=options,
                          allow_unknown=more.pop("allow_unknown", False))  # fmt: skip
    return import_engine(source, Wanted(accelerator=more.pop("on", "h200"), **more))


def serving(engine: str, text: str, **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = read_yaml(imported(engine, text, **more).scenario, "s.yaml").data
    return data


def refused(engine: str, text: str, **more: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        imported(engine, text, **more)
    return str(caught.value)


def test_expert_parallelism_of_vllm_is_all_ranks() -> None:
    data = serving("vllm", f"{DEEPSEEK} --all2all-backend deepep_low_latency")
    assert data["model"] == "deepseek-v3"
    assert data["cluster"]["devices"] == 8
    assert data["serving"]["parallel"] == {"tp": 1, "dp": 8, "ep": 8, "exchange": "deepep_low"}
    assert data["serving"]["formats"] == {"weights": "fp8_block128"}


def test_copies_of_experts() -> None:
    eplb = "--enable-eplb --eplb-config.num_redundant_experts 32"
    assert serving("vllm", f"{DEEPSEEK} {eplb}")["serving"]["parallel"]["redundant_experts"] == 32
    text = f"{SGLANG} --ep 8 --ep-num-redundant-experts 16 --moe-a2a-backend deepep"
    parallel = serving("sglang", text)["serving"]["parallel"]
    assert parallel == {"tp": 8, "ep": 8, "redundant_experts": 16, "exchange": "deepep"}


def test_two_batches_overlap_where_tokens_travel() -> None:
    text = f"{DEEPSEEK} --enable-dbo --all2all-backend deepep_low_latency"
    assert serving("vllm", text)["serving"]["engine"]["overlap"] == "two_batch"
    text = f"{SGLANG} --moe-a2a-backend deepep --enable-two-batch-overlap"
    assert "overlap" not in serving("sglang", text)["serving"]["engine"]
    ranks = serving("sglang", f"{text} --dp 8 --enable-dp-attention")
    assert ranks["serving"]["engine"]["overlap"] == "two_batch"


def test_a_dense_model_s_data_parallel_ranks_are_replicas() -> None:
    data = serving("vllm", "vllm serve meta-llama/Llama-3.1-8B-Instruct -tp 2 -dp 2 --dtype half")
    assert data["cluster"]["devices"] == 4
    assert data["serving"]["parallel"] == {"tp": 2}
    assert data["serving"]["formats"] == {"weights": "fp16", "head": "fp16"}


def test_limits_of_vllm() -> None:
    text = (
        "docker run vllm/vllm-openai && VLLM_USE_V1=1 vllm serve openai/gpt-oss-120b "
        "--max-num-seqs 64 --max_num_batched_tokens=8K --gpu-memory-utilization 0.85 "
        "--kv-cache-dtype fp8 --block-size 32 --max-model-len 1000 "
        "--disable-log-requests --served-model-name a b"
    )
    data = serving("vllm", text, version="0.10.2")["serving"]
    assert data["engine"] == {
        "name": "vllm", "version": "0.10.2", "max_sequences": 64, "token_budget": 8192,
        "memory_fraction": 0.85, "block_tokens": 32, "max_model_tokens": 1000,
    }  # fmt: skip
    assert data["formats"] == {"experts": "w4a16_mxfp4", "cache": "fp8"}
    assert (data["workload"]["prompt"], data["workload"]["output"]) == (500, 500)


def test_attention_data_parallel_ranks_of_sglang_share_its_limits() -> None:
    text = (
        f"{SGLANG} --dp 8 --enable-dp-attention --moe-a2a-backend deepep --deepep-mode normal "
        "--chunked-prefill-size 32768 --max-prefill-tokens 32768 --max-running-requests 1024 "
        "--mem-fraction-static 0.82 --attention-backend flashinfer --page-size 64"
    )
    data = serving("sglang", text)
    assert data["cluster"]["devices"] == 8
    parallel = {"tp": 1, "dp": 8, "ep": 8, "exchange": "deepep_normal"}
    assert data["serving"]["parallel"] == parallel
    assert data["serving"]["engine"] == {
        "name": "sglang", "max_sequences": 128, "token_budget": 4096, "block_tokens": 64,
        "memory_fraction": 0.82,
    }  # fmt: skip


def test_sglang_s_data_parallelism_without_attention_is_replicas() -> None:
    data = serving("sglang", f"{SGLANG} --dp-size 2 --ep-size 4 --quantization fp8")
    assert data["cluster"]["devices"] == 16
    assert data["serving"]["parallel"] == {"tp": 8, "ep": 4}


def test_llm_api_options_stand_beside_the_command_line() -> None:
    options = (
        "enable_attention_dp: true\nmax_batch_size: 16\nkv_cache_config:\n  dtype: fp8\n"
        "  free_gpu_memory_fraction: 0.8\n  enable_block_reuse: false\n"
        "enable_chunked_prefill: true\n"
        "scheduler_config:\n  capacity_scheduler_policy: MAX_UTILIZATION\nstream_interval: 10\n"
    )
    data = serving("trtllm", f"{TRTLLM} --max_batch_size 512", on="b200",
                   options=(options, "x.yml"))["serving"]  # fmt: skip
    assert data["parallel"] == {"tp": 1, "dp": 8, "ep": 8}
    assert data["engine"] == {
        "name": "tensorrt-llm", "max_sequences": 512, "memory_fraction": 0.8,
        "batching": "mixed", "reserve_output": False, "prefix_caching": False,
    }  # fmt: skip
    assert data["formats"] == {"weights": "nvfp4", "attention": "bf16", "cache": "fp8"}


def test_trtllm_bench_says_its_load() -> None:
    text = (
        "trtllm-bench -m meta-llama/Llama-3.1-70B-Instruct throughput --dataset d.jsonl --tp 4 "
        "--concurrency 32 --num_requests 100 --backend pytorch --kv_cache_free_gpu_mem_fraction 0.9"
    )
    data = serving("trtllm", text)["serving"]
    assert data["parallel"] == {"tp": 4}
    assert (data["workload"]["in_flight"], data["workload"]["requests"]) == (32, 100)


@pytest.mark.parametrize(
    ("engine", "text", "message"),
    [
        ("vllm", "vllm serve Qwen/Qwen3-8B -ep", "--enable-expert-parallel: the model has no exp"),
        ("vllm", "vllm serve Qwen/Qwen3-8B -tp 3", "must divide the model's 32 attention heads"),
        ("vllm", "vllm serve Qwen/Qwen3-8B --max-num-seqs 64 --max-num-batched-tokens 32",
         "must be at least --max-num-seqs 64"),
        ("vllm", "vllm serve Qwen/Qwen3-8B --gpu-memory-utilization 1.5", "at most 1"),
        ("vllm", f"{DEEPSEEK} -q awq", "is not the checkpoint's own quantisation"),
        ("vllm", f"{DEEPSEEK} --enable-dbo", "needs --all2all-backend deepep_low_latency"),
        ("vllm", f"{DEEPSEEK} --all2all-backend pplx", "pplx is not modelled"),
        ("vllm", "vllm serve Qwen/Qwen3-30B-A3B --enable-eplb", "needs --enable-expert-parallel"),
        ("vllm", "vllm serve Qwen/Qwen3-30B-A3 -tp 2", "Did you mean 'qwen3-30b-a3b'"),
        ("vllm", "vllm serve -tp 2", "no model is named"),
        ("vllm", "vllm serve Qwen/Qwen3-8B --max-num-seq 2", "Did you mean '--max-num-seqs'"),
        ("vllm", "vllm serve Qwen/Qwen3-8B -tp $TP", "${TP} in '${TP}' is not set"),
        ("vllm", SGLANG, "this is a command of sglang"),
        ("sglang", f"{SGLANG} --dp 3 --enable-dp-attention", "must divide --tp-size 8"),
        ("sglang", f"{SGLANG} --ep 3", "must divide --tp-size 8, not 3"),
        ("sglang", f"{SGLANG} --page-size 64 --chunked-prefill-size 100", "multiple of --page-si"),
        ("sglang", f"{SGLANG} --enable-two-batch-overlap", "needs --moe-a2a-backend other than"),
        ("trtllm", "trtllm-serve Qwen/Qwen3-30B-A3B --tp_size 4 --ep_size 2 "
         "--moe_tensor_parallel_size 4", "times --ep-size 2 must be --tp-size 4"),
        ("trtllm", "trtllm-serve Qwen/Qwen3-8B --tp_size 2 --ep_size 2", "model has no experts"),
    ],
)  # fmt: skip
def test_what_the_engine_refuses(engine: str, text: str, message: str) -> None:
    assert message in refused(engine, text)


def test_a_wrong_key_of_the_options_is_told_where_it_stands() -> None:
    options = ("max_batch_size: 4\nkv_cache_config:\n  dtyp: fp8\n", "x.yml")
    message = refused("trtllm", TRTLLM, on="b200", options=options)
    assert "x.yml:3:1: --kv-cache-config.dtyp: unknown argument. Did you mean" in message


def test_what_became_of_each_argument() -> None:
    text = f"{DEEPSEEK} --no-enable-prefix-caching --speculative-config.num_speculative_tokens 3"
    found = imported("vllm", f"{text} --host x --nonsense 1", allow_unknown=True)
    kinds = {one.argument: one.kind for one in engine_fates(found.read)}
    assert kinds == {
        "--tensor-parallel-size 1": "mapped",
        "--data-parallel-size 8": "mapped",
        "--enable-expert-parallel": "mapped",
        "--enable-prefix-caching false": "mapped",
        '--speculative-config {"num_speculative_tokens": 3}': "not modelled",
        "--host x": "no effect",
        "--nonsense 1": "unknown",
    }
    assert "# Unknown, left out: --nonsense 1" in found.scenario
    assert found.trouble == ""


def test_devices_are_whole_deployments() -> None:
    assert serving("vllm", DEEPSEEK, devices=16)["cluster"]["devices"] == 16
    assert "no multiple of the 8 devices" in refused("vllm", DEEPSEEK, devices=12)


def test_a_model_by_another_name() -> None:
    data = serving("vllm", "vllm serve /models/mine -tp 2", model="mixtral-8x7b")
    assert data["model"] == "mixtral-8x7b"


def test_an_unknown_version_is_told() -> None:
    message = refused("vllm", DEEPSEEK, version="latest")
    assert "--engine-version: 'latest' is no version of vllm such as 0.33" in message
    assert "older than all known: 0.6" in refused("vllm", DEEPSEEK, version="0.2.7")


def test_no_argument_is_in_two_classes() -> None:
    for dialect, _ in DIALECTS.values():
        classes = [
            dialect.mapped_flags | dialect.mapped_values,
            dialect.silent_flags | dialect.silent_values,
            dialect.unmodelled_flags.keys() | dialect.unmodelled_values.keys(),
        ]
        assert sum(map(len, classes)) == len(dialect.flags | dialect.values), dialect.engine
        assert not dialect.flags & dialect.values, dialect.engine
        assert dialect.several <= dialect.values, dialect.engine
        assert not dialect.aliases.keys() & (dialect.flags | dialect.values), dialect.engine
        assert set(dialect.aliases.values()) <= dialect.flags | dialect.values, dialect.engine
