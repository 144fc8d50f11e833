"""Features in engines' command lines: caching, graphs, guesses, ranks that wait, one side alone.

Expected sizes are counted by hand from the engines' patterns: 1, 2, 4, then every 8, ...
"""

from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.spec.engines.read import EngineSource, engine_fates
from moesim.spec.serving.cluster import ServingClusterSpec
from moesim.spec.yaml_text import read_yaml
from moesim.study.engine_imports import EngineImport, import_engine
from moesim.study.engine_workload import Wanted

SMALL = "vllm serve Qwen/Qwen3-8B"
DEEPSEEK = "vllm serve deepseek-ai/DeepSeek-V3 -tp 8"
SGLANG = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8"
RANKS = f"{SGLANG} --dp 8 --enable-dp-attention"
TRTLLM = "trtllm-serve nvidia/DeepSeek-R1-0528-FP4 --tp_size=8 --ep_size=8"
ENGINES = {"vllm": SMALL, "sglang": SGLANG, "trtllm": TRTLLM}


def imported(engine: str, text: str, **more: Any) -> EngineImport:
    options = more.pop("options", None)
    source = EngineSource(
        engine=engine, text=text, options=None if options is None else (options, "x.yml")
    )
    return import_engine(source, Wanted(accelerator=more.pop("on", "h200"), **more))


def engine_of(engine: str, text: str, **more: Any) -> dict[str, Any]:
    data = read_yaml(imported(engine, text, **more).scenario, "s.yaml").data
    found: dict[str, Any] = data["serving"]["engine"]
    del found["name"]
    return found


def fates(engine: str, text: str, **more: Any) -> dict[str, tuple[str, str]]:
    read = imported(engine, text, **more).read
    return {one.argument: (one.kind, one.became) for one in engine_fates(read)}


def refused(engine: str, text: str, **more: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        imported(engine, text, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("engine", "flags", "keys"),
    [
        ("vllm", "--max-model-len 32K", {"max_model_tokens": 32768}),
        ("vllm", "--max-model-len auto", {}),
        ("sglang", "--context-length 8192", {"max_model_tokens": 8192}),
        ("trtllm", "--max_seq_len 4096", {"max_model_tokens": 4096}),
        ("vllm", "--enable-prefix-caching", {"prefix_caching": True}),
        ("vllm", "--no-enable-prefix-caching", {"prefix_caching": False}),
        ("vllm", "--async-scheduling", {"async_scheduling": True}),
        ("vllm", "--no-async-scheduling", {"async_scheduling": False}),
        ("sglang", "--disable-overlap-schedule", {"async_scheduling": False}),
        ("trtllm", "--disable_overlap_scheduler", {"async_scheduling": False}),
        ("sglang", "--disable-radix-cache", {"prefix_caching": False}),
        ("vllm", "--enforce-eager --cuda-graph-sizes 64", {"graphs": False}),
        ("vllm", "-O0", {"graphs": False}),
        ("vllm", "-O3", {}),
        ("vllm", "--cuda-graph-sizes 20", {"graph_sizes": [1, 2, 4, 8, 16, 20]}),
        ("vllm", "--cuda-graph-sizes 1 8 2", {"graph_sizes": [1, 2, 8]}),
        ("vllm", "--max-cudagraph-capture-size 24", {"graph_sizes": [1, 2, 4, 8, 16, 24]}),
        ("vllm", "-cc.cudagraph_capture_sizes=[4,2]", {"graph_sizes": [2, 4]}),
        ("vllm", """-cc '{"cudagraph_mode": "NONE"}'""", {"graphs": False}),
        ("vllm", """-cc '{"mode": 0, "cudagraph_mode": "FULL"}'""", {}),
        ("sglang", "--disable-cuda-graph", {"graphs": False}),
        ("sglang", "--cuda-graph-max-bs 20", {"graph_sizes": [1, 2, 4, 8, 12, 16, 20]}),
        ("sglang", "--cuda-graph-bs 1 2 64 --cuda-graph-max-bs 9", {"graph_sizes": [1, 2, 64]}),
    ],
)
def test_flags_become_keys(engine: str, flags: str, keys: dict[str, Any]) -> None:
    found = engine_of(engine, f"{ENGINES[engine]} {flags}")
    assert found == keys


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ("kv_cache_config:\n  enable_block_reuse: false\n", {"prefix_caching": False}),
        ("cuda_graph_config: null\n", {"graphs": False}),
        ("use_cuda_graph: false\n", {"graphs": False}),
        ("cuda_graph_config:\n  batch_sizes: [8, 1]\n", {"graph_sizes": [1, 8]}),
        ("cuda_graph_config:\n  enable_padding: true\n  max_batch_size: 10\n",
         {"graph_sizes": [1, 2, 4, 8, 10]}),
        ("speculative_config: null\nkv_cache_config: null\n", {}),
        ("enable_attention_dp: true\nattention_dp_config:\n  enable_balance: true\n"
         "  timeout_iters: 60\n  batching_wait_iters: 0\n", {"balance_steps": 60}),
        ("enable_attention_dp: true\nattention_dp_config:\n  enable_balance: false\n"
         "  timeout_iters: 60\n", {}),
    ],
)  # fmt: skip
def test_llm_api_options_become_keys(options: str, keys: dict[str, Any]) -> None:
    assert engine_of("trtllm", TRTLLM, on="b200", options=options) == keys


def test_the_prefill_delayer_waits_for_all_ranks() -> None:
    flags = "--enable-prefill-delayer --prefill-delayer-max-delay-passes 100"
    assert engine_of("sglang", f"{RANKS} {flags}") == {"balance_steps": 100}
    assert fates("sglang", f"{SGLANG} {flags}")["--enable-prefill-delayer"][0] == "no effect"


def test_one_batch_hides_shared_experts_only() -> None:
    flag = "--moe-a2a-backend deepep --enable-single-batch-overlap"
    assert engine_of("sglang", f"{RANKS} {flag}") == {"overlap": "shared_expert"}
    both = f"{RANKS} {flag} --enable-two-batch-overlap"
    assert engine_of("sglang", both) == {"overlap": "two_batch"}
    assert fates("sglang", both)["--enable-single-batch-overlap"][0] == "not modelled"
    assert fates("sglang", f"{SGLANG} {flag}")["--enable-single-batch-overlap"][0] == (
        "not modelled"
    )


MTP = """--speculative-config '{"method": "deepseek_mtp", "num_speculative_tokens": 2}'"""
NEXTN = ("--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1 "
         "--speculative-num-draft-tokens 4")  # fmt: skip


def test_guesses_of_the_model_s_own_module() -> None:
    assert engine_of("vllm", f"{DEEPSEEK} {MTP}", acceptance="0.85,0.6")["speculative"] == {
        "draft_tokens": 2, "acceptance": [0.85, 0.6], "mtp": True,
    }  # fmt: skip
    sglang = engine_of("sglang", f"{SGLANG} {NEXTN}", acceptance="0.8")
    assert sglang == {
        "max_sequences": 48, "speculative": {"draft_tokens": 3, "acceptance": 0.8, "mtp": True},
    }  # fmt: skip
    options = "speculative_config:\n  decoding_type: MTP\n  num_nextn_predict_layers: 3\n"
    trtllm = engine_of("trtllm", TRTLLM, on="b200", options=options, acceptance="0.8")
    assert trtllm == {"speculative": {"draft_tokens": 3, "acceptance": 0.8, "mtp": True}}


def test_guesses_of_a_small_model() -> None:
    small = "--speculative-config.model Qwen/Qwen3-4B --speculative-config.num_speculative_tokens 4"
    assert engine_of("vllm", f"{SMALL} {small}", acceptance="0.7")["speculative"] == {
        "draft_tokens": 4, "acceptance": 0.7, "draft_model": "qwen3-4b",
    }  # fmt: skip
    alone = "python -m sglang.launch_server --model Qwen/Qwen3-8B --max-running-requests 9"
    flags = "--speculative-algorithm STANDALONE --speculative-draft-model-path Qwen/Qwen3-4B"
    found = engine_of("sglang", f"{alone} {flags} --speculative-num-steps 2", acceptance="0.7")
    assert found["speculative"]["draft_model"] == "qwen3-4b"
    assert found["max_sequences"] == 9


@pytest.mark.parametrize(
    ("engine", "text", "argument", "words"),
    [
        ("vllm", f"{SMALL} --num-speculative-tokens 2 --speculative-model '[ngram]'",
         "--num-speculative-tokens 2", "guesses by ngram"),
        ("vllm", f"{SMALL} --num-speculative-tokens 2 --speculative-model me/tiny",
         "--num-speculative-tokens 2", "'me/tiny' is not known"),
        ("sglang", f"{RANKS} {NEXTN}", "--speculative-algorithm EAGLE", "attention data parallel"),
        ("sglang", f"{SGLANG} {NEXTN.replace('topk 1', 'topk 4')}",
         "--speculative-algorithm EAGLE", "a tree of guesses"),
        ("sglang", f"{SGLANG} --speculative-algorithm NGRAM", "--speculative-algorithm NGRAM",
         "guesses by NGRAM"),
    ],
)  # fmt: skip
def test_other_guesses_are_not_modelled(engine: str, text: str, argument: str, words: str) -> None:
    kind, became = fates(engine, text)[argument]
    assert kind == "not modelled"
    assert words in became


def test_none_leaves_guesses_out() -> None:
    found = imported("vllm", f"{DEEPSEEK} {MTP}", acceptance="none")
    assert "speculative:" not in found.scenario
    assert "left out by --acceptance none" in found.scenario


@pytest.mark.parametrize(
    ("engine", "text", "acceptance", "message"),
    [
        ("vllm", f"{DEEPSEEK} {MTP}", None, "give --acceptance SHARE"),
        ("vllm", f"{DEEPSEEK} {MTP}", "0.8,0.6,0.4", "acceptance by place needs 2 shares"),
        ("vllm", f"{DEEPSEEK} {MTP}", "80%", "must be shares from 0 to 1"),
        ("vllm", DEEPSEEK, "0.8", "the command line guesses no tokens"),
        ("vllm", f"{SMALL} {MTP}", "0.8", "no module for multi-token prediction"),
        ("vllm", f"{SMALL} --speculative-config '[1]'", "0.8", "must be a JSON object"),
        ("sglang", f"{SGLANG} --speculative-algorithm EAGLE --speculative-eagle-topk 1", "0.8",
         "--speculative-num-steps: must be given with"),
        ("sglang", f"{SGLANG} --disable-radix-cache --enable-hierarchical-cache", None,
         "contradicts --enable-hierarchical-cache"),
        ("vllm", f"{SMALL} --cudagraph-capture-sizes 1 2 --max-cudagraph-capture-size 4", None,
         "must be the largest of the sizes captured, 2, not 4"),
        ("vllm", f"""{SMALL} -cc '{{"cudagraph_capture_sizes": [1, "a"]}}'""", None,
         "must be a list of whole numbers"),
        ("vllm", f"{SMALL} --cuda-graph-sizes a", None, "must be whole numbers such as 1 2 4 8"),
        ("sglang", f"{SGLANG} --cuda-graph-max-bs 0", None, "must be at least 1, not 0"),
        ("vllm", f"{SMALL} --max-model-len x", None, "must be a whole number such as 8192"),
        ("sglang", f"{SGLANG} --disaggregation-mode both", None, "must be one of null, prefill"),
        ("vllm", f"""{SMALL} --kv-transfer-config '{{"kv_role": "producer"}}'""", None,
         "kv_role must be kv_producer"),
        ("vllm", f"{SMALL} --enable-prefix-cachin", None, "Did you mean '--enable-prefix-caching'"),
    ],
)  # fmt: skip
def test_what_is_refused(engine: str, text: str, acceptance: str | None, message: str) -> None:
    assert message in refused(engine, text, acceptance=acceptance)


def cluster_of(engine: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(imported(engine, text).scenario, "s.yaml").data["serving"]
    return dict(found.get("cluster") or {})


def test_routers() -> None:
    assert cluster_of("vllm", f"{SMALL} -dp 2") == {"router": "least_outstanding"}
    assert cluster_of("vllm", f"{SMALL} -dp 2 --data-parallel-external-lb") == {}
    qwen = "python -m sglang.launch_server --model Qwen/Qwen3-8B"
    assert cluster_of("sglang", f"{qwen} --dp 2 --load-balance-method shortest_queue") == {
        "router": "least_outstanding"
    }
    behind = "python -m sglang_router.launch_server --model Qwen/Qwen3-8B --dp-size 2"
    assert cluster_of("sglang", f"{behind} --router-policy power_of_two") == {
        "router": "power_of_two"
    }
    assert cluster_of("sglang", f"{behind} --router-policy cache_aware") == {}


def test_one_side_says_how_to_put_both_together() -> None:
    """The two pools pasted into one scenario make one that is valid."""
    pools = []
    for side, flags in (("prefill", "--cuda-graph-max-bs 8"), ("decode", "--disable-radix-cache")):
        found = imported("sglang", f"{RANKS} {flags} --disaggregation-mode {side}")
        lines = [line.removeprefix("# ") for line in found.scenario.splitlines()]
        at = lines.index(f"  {side}:")
        assert lines[at - 1] == "  disaggregation: prefill_decode"
        pools += lines[at : at + 3]
    assert pools == [
        "  prefill:",
        "    parallel: {tp: 1, dp: 8}",
        "    engine: {name: sglang}",
        "  decode:",
        "    parallel: {tp: 1, dp: 8}",
        "    engine: {name: sglang}",
    ]
    text = "\n".join(["disaggregation: prefill_decode", *(line[2:] for line in pools)])
    ServingClusterSpec.model_validate(read_yaml(text, "s.yaml").data)


@pytest.mark.parametrize(
    ("engine", "text", "side"),
    [
        ("vllm", f"""{SMALL} --kv-transfer-config '{{"kv_role": "kv_consumer"}}'""", "decode"),
        ("trtllm", f"{TRTLLM} --server_role CONTEXT", "prefill"),
    ],
)
def test_sides_of_the_other_engines(engine: str, text: str, side: str) -> None:
    found = imported(engine, text, on="b200")
    assert f"#   {side}:" in found.scenario
    kinds = {one.argument.split()[0]: one.kind for one in engine_fates(found.read)}
    assert "not modelled" in kinds.values()


def test_a_cache_beside_is_no_side() -> None:
    config = '{"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}'
    text = f"{SMALL} --kv-transfer-config '{config}'"
    assert "a cache beside" in fates("vllm", text)[f"--kv-transfer-config {config}"][1]


BOTH = f"""
{RANKS} --disaggregation-mode prefill --chunked-prefill-size 65536 --host a &
{SGLANG} --disaggregation-mode=decode --disable-cuda-graph --max-running-requests 64
"""


def test_both_sides_of_a_script_are_pools() -> None:
    """A prefill replica of 8 ranks (65,536 / 8 tokens each) beside a decode replica of tp 8."""
    found = imported("sglang", BOTH, devices=32)
    data = read_yaml(found.scenario, "s.yaml").data
    assert data["cluster"]["devices"] == 32
    assert data["serving"]["cluster"] == {
        "disaggregation": "prefill_decode",
        "prefill": {
            "replicas": 2,
            "engine": {"name": "sglang", "token_budget": 8192},
            "parallel": {"tp": 1, "dp": 8},
        },
        "decode": {
            "replicas": 2,
            "engine": {"name": "sglang", "max_sequences": 64, "graphs": False},
            "parallel": {"tp": 8},
        },
    }
    assert data["serving"]["formats"] == {"weights": "fp8_block128"}
    assert found.trouble == ""
    said = {one.name: one.value for one in found.resolved}
    assert (said["prefill token_budget"], said["decode max_sequences"]) == (8192, 64)
    assert (said["prefill prefix_caching"], said["decode prefix_caching"]) == (True, False)
    assert said["prefill graphs"] == "none"
    became = {fate.argument: fate.became for fate in engine_fates(found.reads[0])}
    assert became["--tp-size 8"] == "serving.cluster.prefill.parallel.tp: 1"
    assert [read.reading.notes for read in found.reads] == [[], []]
    assert "not modelled" not in {fate.kind for read in found.reads for fate in engine_fates(read)}


def test_both_sides_serve_one_model() -> None:
    other = BOTH.replace("DeepSeek-R1 --tp 8 --disaggregation-mode=d", "DeepSeek-V3.2 --tp 8 "
                         "--disaggregation-mode=d")  # fmt: skip
    assert other != BOTH
    assert "must have one model" in refused("sglang", other)


def test_of_two_commands_of_one_side_the_last_counts() -> None:
    text = BOTH.replace("=decode", "=prefill")
    assert "serving.cluster" in " ".join(imported("sglang", text).read.reading.notes)
