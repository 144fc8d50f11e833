"""Full sharding and TPU batches of published cases, read by what their sources document."""

from typing import Any

import pytest

from moesim.spec.cases import Case
from moesim.study.validate.maxtext import remat
from moesim.study.validate.options import Reading
from moesim.study.validate.sharding import lighter, read_offload, read_sharding, read_tpu_batch

OFFLOADED = ["decoder_layer_input", "query_proj", "key_proj", "value_proj"]


def _case(hardware: str = "h100-hgx", **words: Any) -> Case:
    return Case("one", "train_step", {"hardware": hardware, **words})


def _fsdp(dp: int, cp: int = 1, hardware: str = "h100-hgx", **cut: Any) -> int | None:
    reading = Reading(parallel={"cp": cp})
    read_sharding(_case(hardware, parallel=cut), reading, dp)
    return reading.parallel.get("fsdp")


def test_shard_groups() -> None:
    assert _fsdp(64) is None
    assert _fsdp(64, fsdp=True) == _fsdp(64, fsdp="all") == _fsdp(64, fsdp=64) == 64
    assert _fsdp(64, fsdp=8) == 8
    # cp 2: some sources count its ranks
    assert _fsdp(32, cp=2, fsdp=64) == _fsdp(32, cp=2, fsdp=32) == 32


def test_maxtext_shards_over_all_but_replicas_of_slices() -> None:
    assert _fsdp(256, hardware="tpu-v6e", fsdp=64, ep=4, pdb=8) == 256
    assert _fsdp(1024, hardware="tpu-v6e", fsdp=16, ep=16, dcn_dp=4, tokens_per_device=8192) == 256


def _batch(case: Case, chips: int, **parallel: int) -> Reading:
    reading = Reading(parallel=dict(parallel))
    assert read_tpu_batch(case, reading, chips)
    return reading


def test_sequences_per_device() -> None:
    training = _batch(_case("tpu-v6e", parallel={"pdb": 4, "seq": 8192}), 256).training
    assert training == {"sequence_length": 8192, "global_batch": 1024, "micro_batch": 4}


def test_tokens_per_device_are_one_sequence() -> None:
    """Of 256 chips with tp 4 each replica of 4 takes 4 sequences."""
    case = _case("tpu-v6e", parallel={"tokens_per_device": 2048, "tp": 4})
    reading = _batch(case, 256, tp=4)
    assert reading.training == {"sequence_length": 2048, "global_batch": 256, "micro_batch": 4}
    assert "not stated" in reading.assumed[0]


@pytest.mark.parametrize(
    "guess",
    [
        "sequence 512 in, 114 out and batch 2^20 tokens are assumptions",
        "512 tokens in, 114 out, batches of 2^20",
    ],
)
def test_cores_of_mesh_tensorflow(guess: str) -> None:
    """2^20 tokens of 512 are 2048 examples, 128 per chip; 32 ways over cores are 16 over chips."""
    cut = {"cores": 32, "ep": 32, "dp": 32, "seq": 512}
    case = _case("tpu-v3", cls="moe", parallel=cut, guesses=[guess])
    reading = _batch(case, 16, ep=32)
    assert reading.parallel["ep"] == 16
    given = {name: reading.training[name] for name in ("target_length", "global_batch")}
    assert given == {"target_length": 114, "global_batch": 2048}
    assert reading.training["micro_batch"] == 128
    assert lighter(reading)
    assert reading.training["micro_batch"] == 64


def test_remat_policies() -> None:
    assert remat(_case("tpu-v6e", parallel={"pdb": 1}))[0] == "full"
    again, _ = remat(_case("tpu-v6e", options={"activation_offload": OFFLOADED}))
    assert not {"qkv"} & set(again)
    assert {"proj", "mlp", "moe", "core_attn", "layernorm"} <= set(again)
    again, _ = remat(_case("tpu-v6e", options={"activation_offload": [*OFFLOADED, "out_proj"]}))
    assert not {"qkv", "proj"} & set(again)


def test_offloaded_layers() -> None:
    def layers(hardware: str, **options: Any) -> int | None:
        reading = Reading()
        read_offload(_case(hardware, parallel={"pdb": 1}, options=options), reading, 32)
        return reading.training.get("offload_layers")

    assert layers("tpu-v6e", activation_offload=OFFLOADED) == 32
    assert layers("gb200-nvl72", activation_offload_layers=12) == 12
    assert layers("gb200-nvl72", activation_offload=["expert_fc1"]) is None


def test_what_is_stated_is_not_made_lighter() -> None:
    reading = Reading(training={"micro_batch": 4, "recompute": "none"})
    assert not lighter(reading)
    reading.unstated.add("recompute")
    assert lighter(reading)
    assert reading.training == {"micro_batch": 4, "recompute": "full"}
    assert not lighter(reading)
