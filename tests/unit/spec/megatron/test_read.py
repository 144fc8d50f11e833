"""Each argument of Megatron-LM becomes a key, or says that it does not, or is an error."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import ScenarioError
from moesim.spec.megatron import arguments, silent, unmodelled
from moesim.spec.megatron.read import Imported, Source, fates, read_megatron

DENSE = (
    "--num-layers 8 --hidden-size 1024 --num-attention-heads 16 --seq-length 2048 "
    "--micro-batch-size 1 --global-batch-size 64 --vocab-size 1000 "
)
MOE = DENSE + (
    "--num-experts 8 --bf16 --swiglu --disable-bias-linear --moe-token-dispatcher-type alltoall "
)


def read(text: str, devices: int = 16, **options: Any) -> Imported:
    return read_megatron(Source(text=text, devices=devices, **options), lambda experts: 0.25)


def keys(text: str, devices: int = 16) -> dict[str, Any]:
    reading = read(text, devices).reading
    return {key: entry.value for key, entry in (reading.scenario | reading.model).items()}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        # 1000 tokens, a multiple of 128 * tp
        ("", "model.vocab", 1024),
        ("--tensor-model-parallel-size 8", "model.vocab", 1024),
        ("--tensor-model-parallel-size 16", "model.vocab", 2048),
        ("--make-vocab-size-divisible-by 1", "model.vocab", 1000),
        ("--padded-vocab-size 1001", "model.vocab", 1001),
        ("--tokenizer-type NullTokenizer --make-vocab-size-divisible-by 1", "model.vocab", 1001),
        # 4 h; with swiglu 8/3 h rounded down to 64: 1024 * 8 / 3 = 2730.67 -> 2688
        ("", "model.ffn.width", 4096),
        ("--swiglu", "model.ffn.width", 2688),
        ("", "model.ffn.gated", False),
        ("--swiglu", "model.ffn.gated", True),
        ("", "model.attention.kv_heads", 16),
        ("--group-query-attention", "model.attention.kv_heads", 1),
        ("--group-query-attention --num-query-groups 4", "model.attention.kv_heads", 4),
        ("", "model.attention.head_dim", 64),
        ("--kv-channels 128", "model.attention.head_dim", 128),
        ("", "model.attention.qkv_bias", True),
        ("--disable-bias-linear --add-qkv-bias", "model.attention.qkv_bias", True),
        ("--disable-bias-linear", "model.attention.output_bias", False),
        ("--qk-layernorm", "model.attention.qk_norm", "per_head"),
        ("--window-size 127,0", "model.attention.window", 128),
        ("--window-size (127,0) --window-attn-skip-freq 2", "model.second_attention.every", 2),
        ("--softmax-type learnable", "model.attention.sinks", True),
        ("--multi-latent-attention", "model.attention.kv_lora_rank", 32),
        ("", "model.norm", "layer"),
        ("--normalization RMSNorm", "model.norm", "rms"),
        ("", "model.tied_embeddings", True),
        ("--max-position-embeddings 4096", "model.learned_positions", 4096),
        ("--mtp-num-layers 1", "model.mtp_layers", 1),
        ("", "training.precision", "fp32"),
        ("--fp16", "training.precision", "fp16"),
        ("--bf16 --fp8-format hybrid", "training.fp8_recipe", "delayed"),
        ("--bf16 --fp8-format e4m3 --fp8-recipe mxfp8", "training.fp8_recipe", "mxfp8"),
        ("", "training.cross_entropy", "unfused"),
        ("--cross-entropy-loss-fusion", "training.cross_entropy", "native"),
        ("--cross-entropy-loss-fusion --cross-entropy-fusion-impl te", "training.cross_entropy",
         "fused"),
        ("--transformer-impl local", "training.attention_kernel", "unfused"),
        ("--transformer-impl local --use-flash-attn --bf16", "training.attention_kernel", "fused"),
        ("--attention-backend unfused", "training.attention_kernel", "unfused"),
        ("--recompute-activations", "training.recompute", ["core_attn"]),
        ("--recompute-granularity selective --recompute-modules mlp layernorm",
         "training.recompute", ["layernorm", "mlp"]),
        ("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1",
         "training.recompute", "full"),
        ("--optimizer sgd", "training.optimizer.kind", "sgd"),
        ("--optimizer-cpu-offload --optimizer-offload-fraction 0.5", "training.optimizer.offload",
         0.5),
        ("--bf16 --grad-reduce-in-bf16", "training.optimizer.gradient_dtype", "bf16"),
        ("--bf16 --use-distributed-optimizer --use-precision-aware-optimizer --exp-avg-dtype bf16 "
         "--exp-avg-sq-dtype bf16", "training.optimizer.moment_dtype", "bf16"),
        ("--bf16 --use-distributed-optimizer --use-precision-aware-optimizer --exp-avg-dtype fp8 "
         "--exp-avg-sq-dtype fp16", "training.optimizer.second_moment_dtype", "fp16"),
        ("--bf16 --use-distributed-optimizer --use-precision-aware-optimizer --exp-avg-sq-dtype "
         "bf16", "training.optimizer.second_moment_dtype", "bf16"),
        ("", "training.optimizer.distributed", False),
        ("", "training.overlap.grad_reduce", False),
        ("--cuda-graph-impl local --cuda-graph-scope full_iteration", "training.cuda_graph",
         "full"),
        ("--cuda-graph-impl transformer_engine --cuda-graph-scope attn moe_router",
         "training.cuda_graph", "attention_router"),
        ("--use-torch-fsdp2", "parallel.fsdp", 16),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads",
         "parallel.reshard_after_forward", False),
        ("--tensor-model-parallel-size 2", "parallel.sequence_parallel", False),
        ("--tensor-model-parallel-size 2 --sequence-parallel", "parallel.sequence_parallel", True),
        ("--pipeline-model-parallel-size 4 --num-layers-per-virtual-pipeline-stage 1",
         "parallel.vpp", 2),
        ("--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 4",
         "parallel.vpp", 4),
        ("--pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 3",
         "parallel.layout", "Ettt|tttttL"),
        # 8 layers, E and L: 10 slots over 2 stages of 5
        ("--pipeline-model-parallel-size 2 --account-for-embedding-in-pipeline-split "
         "--account-for-loss-in-pipeline-split", "parallel.layout", "Etttt|ttttL"),
        ("--pipeline-model-parallel-size 2 --mtp-num-layers 1 --pipeline-model-parallel-layout "
         "Et*5|(t|)*3,m|L", "parallel.layout", "Et*5|(t|)*3,|mL"),
        ("--context-parallel-size 2", "parallel.cp", 2),
        ("--context-parallel-size 2 --cp-comm-type all_gather", "parallel.cp_comm", "all_gather"),
        ("--context-parallel-size 2 --cp-comm-type a2a", "parallel.cp_comm", "all_to_all"),
        ("--context-parallel-size 2 --cp-comm-type a2a a2a", "parallel.cp_comm", "all_to_all"),
        ("--tensor-model-parallel-size 2 --sequence-parallel --tp-comm-overlap",
         "training.overlap.tensor_parallel", True),
        ("--cpu-offloading-num-layers 3", "training.offload_layers", 3),
        ("--use-tp-pp-dp-mapping", "parallel.rank_order", "tp-cp-ep-pp-dp"),
        ("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout Ett|tt|tt|ttL",
         "parallel.vpp", 2),
    ],
)  # fmt: skip
def test_keys_of_a_dense_model(text: str, key: str, value: Any) -> None:
    assert keys(DENSE + text)[key] == value


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("", "model.moe.top_k", 2),
        ("", "model.moe.expert_width", 2688),
        ("--moe-ffn-hidden-size 512", "model.moe.expert_width", 512),
        ("--moe-layer-freq ([0]*2+[1]*6)", "model.dense_first_layers", 2),
        ("--moe-layer-freq 2", "model.moe_every", 2),
        ("--moe-shared-expert-intermediate-size 64", "model.moe.shared_expert_width", 64),
        ("--moe-router-topk 4 --moe-router-num-groups 4 --moe-router-group-topk 2",
         "model.moe.group_best", 2),
        ("--expert-model-parallel-size 4 --moe-router-topk-limited-devices 2", "model.moe.groups",
         4),
        ("--expert-model-parallel-size 8 --expert-tensor-parallel-size 1", "parallel.ep", 8),
        ("--moe-token-dispatcher-type allgather", "parallel.dispatcher", "allgather"),
        ("--moe-token-dispatcher-type flex", "parallel.dispatcher", "deepep"),
        ("--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend hybridep",
         "parallel.dispatcher", "hybridep"),
        ("--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend ncclep",
         "parallel.dispatcher", "deepep"),
        ("--expert-model-parallel-size 8 --overlap-moe-expert-parallel-comm "
         "--delay-wgrad-compute", "training.overlap.delay_weight_gradients", True),
        ("--moe-shared-expert-intermediate-size 64 --recompute-granularity selective "
         "--recompute-modules shared_experts moe_act", "training.recompute",
         ["moe_act", "shared_experts"]),
        ("", "routing.load.cv", 0.25),
        ("--moe-router-force-load-balancing", "routing.load.law", "even"),
        ("--moe-expert-capacity-factor 1.5", "routing.capacity.factor", 1.5),
        ("--moe-expert-capacity-factor 1.5", "routing.capacity.policy", "probs"),
        ("--moe-expert-capacity-factor 1 --moe-pad-expert-input-to-capacity",
         "routing.capacity.pad", True),
        ("--moe-router-padding-for-fp8 --fp8-format e4m3", "routing.block_rows", 16),
        ("--moe-router-padding-for-fp8 --fp8-format e4m3 --fp8-recipe mxfp8",
         "routing.block_rows", 32),
        ("--moe-layer-recompute", "training.recompute", ["moe"]),
        ("--expert-model-parallel-size 8 --overlap-moe-expert-parallel-comm",
         "training.overlap.expert_exchange", "batch"),
        ("--moe-shared-expert-intermediate-size 64 --moe-shared-expert-overlap",
         "training.overlap.expert_exchange", "shared_expert"),
    ],
)  # fmt: skip
def test_keys_of_a_model_with_experts(text: str, key: str, value: Any) -> None:
    assert keys(MOE + text)[key] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DENSE + "--tensor-modle-parallel-size 2", "Did you mean '--tensor-model-parallel-size'?"),
        (DENSE + "--bf16 --fp16", "cannot stand beside --fp16"),
        (DENSE + "--bf16 yes", "takes no value, not 'yes'"),
        (DENSE + "--lr", "needs a value"),
        (DENSE + "--lr 1 2", "takes one value, not 2"),
        (DENSE + "--num-layers x", "must be a whole number, not 'x'"),
        (DENSE + "--optimizer adm", "Did you mean 'adam'?"),
        ("train.py 5 " + DENSE, "'5' stands before the first argument"),
        (DENSE.replace("--hidden-size 1024", ""), "--hidden-size: has to be given"),
        (DENSE.replace("--vocab-size 1000", ""), "moesim reads no tokenizer"),
        (DENSE + "--global-batch-size 60", "must be a multiple of micro-batch-size * dp = 1 * 16"),
        (DENSE + "--tensor-model-parallel-size 3", "must divide the 16 devices"),
        (DENSE + "--expert-model-parallel-size 2", "needs --num-experts"),
        (DENSE + "--overlap-param-gather", "needs --use-distributed-optimizer"),
        (DENSE + "--use-distributed-optimizer --overlap-param-gather", "--overlap-grad-reduce"),
        (DENSE + "--num-layers-per-virtual-pipeline-stage 1", "parallel-size above 1"),
        (DENSE + "--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 1 "
         "--num-virtual-stages-per-pipeline-rank 2", "cannot stand beside"),
        (DENSE + "--pipeline-model-parallel-size 16", "must share 8 layers evenly"),
        (DENSE + "--recompute-granularity full", "full needs --recompute-method"),
        (DENSE + "--recompute-granularity selective --recompute-modules all", "is none of"),
        (DENSE + "--context-parallel-size 2 --cp-comm-type all-gather", "Did you mean "
         "'all_gather'?"),
        (DENSE + "--context-parallel-size 4 --cp-comm-type a2a+p2p", "needs --hierarchical"),
        (DENSE + "--tensor-model-parallel-size 2 --tp-comm-overlap", "needs --sequence-parallel"),
        (DENSE + "--exp-avg-dtype bf16", "needs --use-precision-aware-optimizer"),
        (DENSE + "--cpu-offloading-num-layers 8", "must be below --num-layers 8"),
        (DENSE + "--cpu-offloading-num-layers 2 --recompute-activations", "beside recomputation"),
        (DENSE + "--cpu-offloading-num-layers 2 --pipeline-model-parallel-size 2", "beside "
         "pipeline"),
        (MOE + "--expert-model-parallel-size 16", "must divide --num-experts 8"),
        (MOE + "--moe-router-topk 9", "must be at most --num-experts 8"),
        (MOE + "--tensor-model-parallel-size 2", "experts with tp above 1 need it"),
        (MOE + "--moe-enable-deepep", "needs --moe-token-dispatcher-type flex"),
        (MOE + "--moe-pad-expert-input-to-capacity", "needs --moe-expert-capacity-factor"),
        (MOE + "--moe-expert-capacity-factor 1 --moe-router-load-balancing-type sinkhorn",
         "needs a balancing type"),
        (MOE + "--moe-router-num-groups 4", "need each other"),
        (MOE + "--delay-wgrad-compute", "needs --overlap-moe-expert-parallel-comm"),
        (MOE + "--overlap-moe-expert-parallel-comm", "needs expert-model-parallel-size above 1"),
        (MOE + "--moe-shared-expert-overlap", "needs --moe-shared-expert-intermediate-size"),
    ],
)  # fmt: skip
def test_what_megatron_refuses_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read(text)
    assert message in str(caught.value)
    assert all(problem.file == "ARGS" for problem in caught.value.problems)


WORDS = sorted(arguments.MAPPED_FLAGS | arguments.MAPPED_VALUES)


@given(
    text=st.lists(
        st.one_of(
            st.sampled_from([f"--{name}" for name in WORDS]),
            st.sampled_from(["0", "1", "2", "-1", "x", "1e9", "([0]*1+[1]*7)", "Et|t|tL", "${X}"]),
            st.text(max_size=6),
        ),
        max_size=12,
    ).map(" ".join)
)
def test_nonsense_is_an_error_of_the_user(text: str) -> None:
    with suppress(ScenarioError):
        read(MOE + text)


def test_devices_come_from_the_launcher() -> None:
    text = f"torchrun --nnodes=2 --nproc-per-node 8 train.py {DENSE}"
    assert read_megatron(Source(text=text), lambda experts: 0.0).devices == 16
    with pytest.raises(ScenarioError, match="the number of devices is not said"):
        read_megatron(Source(text=DENSE), lambda experts: 0.0)


def test_unknown_arguments_can_be_listed() -> None:
    found = fates(read(DENSE + "--made-up 3", allow_unknown=True))
    assert [(fate.argument, fate.kind) for fate in found[-1:]] == [("--made-up 3", "unknown")]


def test_every_argument_has_a_fate() -> None:
    text = MOE + "--lr 1e-4 --tp-comm-overlap-cfg x --moe-grouped-gemm --bf16 --bf16"
    kinds = {fate.argument: fate.kind for fate in fates(read(text))}
    assert kinds["--lr 1e-4"] == "no effect"
    assert kinds["--tp-comm-overlap-cfg x"] == "not modelled"
    assert kinds["--moe-grouped-gemm"] == "no effect"
    assert kinds["--num-experts 8"] == "mapped"
    assert len(kinds) == 7 + 5 + 3


@pytest.mark.parametrize(
    ("text", "argument", "kind", "became"),
    [
        ("--cp-comm-type a2a", "--cp-comm-type a2a", "no effect", "context-parallel-size is 1"),
        ("--context-parallel-size 2 --cp-comm-type p2p", "--cp-comm-type p2p", "mapped",
         "parallel.cp_comm: ring"),
        ("--context-parallel-size 2 --cp-comm-type p2p a2a", "--cp-comm-type p2p a2a",
         "not modelled", "differ by layer"),
        ("--context-parallel-size 4 --cp-comm-type a2a+p2p "
         "--hierarchical-context-parallel-sizes 2 2", "--cp-comm-type a2a+p2p", "not modelled",
         "one ring is assumed"),
        ("--use-precision-aware-optimizer --exp-avg-dtype fp8", "--exp-avg-dtype fp8",
         "mapped", "training.optimizer.moment_dtype: fp8"),
        ("--tp-comm-overlap", "--tp-comm-overlap", "no effect", "tensor-model-parallel-size is 1"),
        ("--use-megatron-fsdp --outer-dp-sharding-strategy optim",
         "--outer-dp-sharding-strategy optim", "not modelled", "parts of the replicas"),
    ],
)  # fmt: skip
def test_values_have_a_fate_too(text: str, argument: str, kind: str, became: str) -> None:
    found = {fate.argument: fate for fate in fates(read(MOE + text))}[argument]
    assert found.kind == kind
    assert became in found.became


def test_defaults_that_differ_are_told() -> None:
    filled = {one.key: (one.value, one.own) for one in read(DENSE).reading.filled}
    assert filled["training.precision"] == ("fp32", "bf16")
    assert filled["training.optimizer.distributed"] == (False, True)
    assert filled["training.overlap.param_gather"] == (False, True)
    assert filled["model.norm"] == ("layer", "rms")
    assert "training.optimizer.kind" not in filled


def test_an_argument_is_in_one_table_only() -> None:
    tables = [arguments.MAPPED_FLAGS, arguments.MAPPED_VALUES, silent.FLAGS, silent.VALUES,
              frozenset(unmodelled.FLAGS), frozenset(unmodelled.VALUES)]  # fmt: skip
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    assert set(silent.REASONS) <= silent.FLAGS | silent.VALUES
    assert not any("_" in name for name in names)
