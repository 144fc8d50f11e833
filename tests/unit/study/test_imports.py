"""Published models' Megatron-LM arguments give exactly the catalogue's parameters."""

import pytest

from moesim.errors import ScenarioError
from moesim.model.named import load_named
from moesim.model.parameters import active_params, total_params
from moesim.spec.megatron.read import Source
from moesim.spec.scenario import Scenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import read_yaml
from moesim.study.imports import Import, cluster_of, import_megatron
from moesim.study.resolve import resolve

LLAMA_LIKE = (
    " --swiglu --normalization RMSNorm --disable-bias-linear --bf16 "
    "--untie-embeddings-and-output-weights --position-embedding-type rope --micro-batch-size 1 "
    "--use-distributed-optimizer --sequence-parallel "
)
DEEPSEEK_V3 = LLAMA_LIKE + (
    "--num-layers 61 --hidden-size 7168 --ffn-hidden-size 18432 --num-attention-heads 128 "
    "--multi-latent-attention --q-lora-rank 1536 --kv-lora-rank 512 --qk-head-dim 128 "
    "--qk-pos-emb-head-dim 64 --v-head-dim 128 --qk-layernorm --num-experts 256 "
    "--moe-router-topk 8 --moe-layer-freq '([0]*3+[1]*58)' --moe-ffn-hidden-size 2048 "
    "--moe-shared-expert-intermediate-size 2048 --moe-router-num-groups 8 "
    "--moe-router-group-topk 4 --moe-router-score-function sigmoid "
    "--moe-router-enable-expert-bias --moe-router-topk-scaling-factor 2.5 "
    "--moe-router-load-balancing-type seq_aux_loss --moe-aux-loss-coeff 1e-4 --moe-grouped-gemm "
    "--moe-token-dispatcher-type flex --moe-enable-deepep --mtp-num-layers 1 "
    "--vocab-size 129280 --seq-length 4096 --global-batch-size 8192 "
    "--pipeline-model-parallel-size 16 --pipeline-model-parallel-layout 'Et|(tt|)*30mL' "
    "--expert-model-parallel-size 64"
)
MIXTRAL = LLAMA_LIKE + (
    "--num-layers 32 --hidden-size 4096 --ffn-hidden-size 14336 --num-attention-heads 32 "
    "--group-query-attention --num-query-groups 8 --num-experts 8 --moe-router-topk 2 "
    "--moe-aux-loss-coeff 1e-2 --moe-grouped-gemm --moe-token-dispatcher-type alltoall "
    "--vocab-size 32000 --seq-length 4096 --global-batch-size 256 "
    "--pipeline-model-parallel-size 4 --expert-model-parallel-size 8"
)
QWEN3 = LLAMA_LIKE + (
    "--num-layers 48 --hidden-size 2048 --ffn-hidden-size 6144 --num-attention-heads 32 "
    "--kv-channels 128 --group-query-attention --num-query-groups 4 --qk-layernorm "
    "--num-experts 128 --moe-router-topk 8 --moe-ffn-hidden-size 768 --moe-grouped-gemm "
    "--moe-token-dispatcher-type alltoall --vocab-size 151936 --seq-length 4096 "
    "--global-batch-size 256 --expert-model-parallel-size 8 --rotary-base 1000000"
)
LLAMA3 = LLAMA_LIKE + (
    "--num-layers 80 --hidden-size 8192 --ffn-hidden-size 28672 --num-attention-heads 64 "
    "--group-query-attention --num-query-groups 8 --vocab-size 128256 --seq-length 8192 "
    "--global-batch-size 128 --tensor-model-parallel-size 4 --pipeline-model-parallel-size 4 "
    "--num-layers-per-virtual-pipeline-stage 5 --context-parallel-size 2"
)


def imported(text: str, devices: int) -> Import:
    return import_megatron(Source(text=text, devices=devices), "dgx-h100", "mine")


@pytest.mark.parametrize(
    ("text", "devices", "name"),
    [
        (DEEPSEEK_V3, 2048, "deepseek-v3"),
        (MIXTRAL, 64, "mixtral-8x7b"),
        (QWEN3, 16, "qwen3-30b-a3b"),
    ],
)
def test_published_arguments_are_the_catalogue_s_model(text: str, devices: int, name: str) -> None:
    found, known = imported(text, devices), load_named(name)
    assert total_params(found.architecture) == total_params(known)
    assert active_params(found.architecture) == active_params(known)
    assert (found.model_name, found.model) == (name, None)
    run = resolve(build(Scenario, read_yaml(found.scenario, "s.yaml")))
    assert run.layout.devices == devices


def test_padding_of_the_vocabulary_is_the_only_difference() -> None:
    """128,256 tokens in steps of 128 * 4 are 128,512: 256 rows of 8,192, twice (untied)."""
    found, known = imported(LLAMA3, 64), load_named("llama-3.1-70b")
    assert total_params(found.architecture) - total_params(known) == 2 * 256 * 8192
    exact = imported(LLAMA3 + " --make-vocab-size-divisible-by 32", 64)
    assert total_params(exact.architecture) == total_params(known)
    assert exact.model_name == "llama-3.1-70b"


def test_a_model_of_its_own_is_written_beside_the_scenario() -> None:
    found = imported(MIXTRAL.replace("--num-layers 32", "--num-layers 24"), 64)
    assert found.model_name == "mine-model.yaml"
    assert found.model is not None
    assert "layers: 24" in found.model
    assert "model: mine-model.yaml" in found.scenario


def test_what_moesim_cannot_simulate_is_told() -> None:
    """80 sequences on 16 replicas are 5 micro-batches: no multiple of 4 stages, interleaved."""
    assert imported(MIXTRAL, 64).trouble == ""
    odd = MIXTRAL.replace("--global-batch-size 256", "--global-batch-size 80")
    assert "micro" in imported(odd + " --num-layers-per-virtual-pipeline-stage 4", 64).trouble


@pytest.mark.parametrize(
    ("name", "cluster"),
    [("h100-sxm", "dgx-h100"), ("h200", "hgx-h200"), ("gb200-nvl72", "gb200-nvl72"),
     ("gb200", "gb200-nvl72"), ("./own.yaml", "./own.yaml")],
)  # fmt: skip
def test_an_accelerator_names_its_usual_cluster(name: str, cluster: str) -> None:
    assert cluster_of(name) == cluster


def test_an_unknown_accelerator_has_a_hint() -> None:
    with pytest.raises(ScenarioError, match="Did you mean 'h100-sxm'"):
        cluster_of("h100-smx")
