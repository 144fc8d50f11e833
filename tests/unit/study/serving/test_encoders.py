"""Encoder-decoder models served: what an engine does with them, memory, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from moesim.cost.iteration import PS_PER_S, step_ps
from moesim.cost.serving.encoder import EncoderTimes
from moesim.cost.serving.exchange import all_reduce_s
from moesim.cost.serving.memory import stage_cache_bytes, weights
from moesim.errors import ScenarioError
from moesim.model.parameters import total_params
from moesim.sim.serving.open_loop import serve as serve_open
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests, requests
from moesim.spec.cases import Case
from moesim.spec.load import load_serving
from moesim.study.serving.assumptions import assumptions
from moesim.study.serving.groups import BATCHES, decode_groups, prompt_groups
from moesim.study.serving.refused import refuse
from moesim.study.serving.resolve import Serving
from moesim.study.serving.run import serve
from moesim.study.serving.shown import engine_defaults
from moesim.study.serving.simulate import simulate, times_of
from moesim.study.validate.inference.deployment import Deployments
from moesim.study.validate.inference.words import Said
from moesim.study.validate.skipped import SkippedError
from tests.unit.study.serving.served import served
from tests.unit.study.validate.inference.test_any_words import CASE, no_file

ONE = "workload: {arrivals: at_once, requests: 1, prompt: 100, output: 5}"


def test_a_request_alone_by_hand(tmp_path: Path) -> None:
    """One pass of the encoder gives the first token, four steps the others.

    Each step reads the keys and values of 100 prompt tokens, of the start token and of what came.
    """
    run = served(tmp_path, "t5-base", serving=ONE)
    times = times_of(run.pools[0].engine)
    first = times.mixed_ps(0, 0, [(100, 0)])
    rest = sum(step_ps(times.lines(1), 100 + step) for step in range(1, 5))
    asked = simulate(run).requests
    assert asked.first[0] == first
    assert asked.finish[0] == first + rest


def test_skipping_equals_stepping(tmp_path: Path) -> None:
    """Law 11 with an encoder: the same times, whether decoding steps are skipped or taken."""
    run = served(tmp_path, "t5-base", serving="engine: {max_sequences: 6, token_budget: 512}")
    times = times_of(run.pools[0].engine)

    def fare(*, one_by_one: bool) -> Requests:
        asked = requests(
            [20 + 37 * i % 300 for i in range(40)], [1 + 13 * i % 60 for i in range(40)],
            [0.003 * i for i in range(40)],
        )  # fmt: skip
        serve_open(Replica(run.rules, times, asked, one_by_one), asked)
        return asked

    skipped, stepped = fare(one_by_one=False), fare(one_by_one=True)
    assert skipped.first == stepped.first
    assert skipped.finish == stepped.finish
    assert min(skipped.finish) > 0


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_engines_take_prompts_whole(tmp_path: Path, engine: str) -> None:
    run = served(tmp_path, "t5-base", serving=f"engine: {{name: {engine}}}")
    refuse(run)
    assert run.rules.batching == "whole_prompts"
    assert run.rules.reserve_output
    assert not run.rules.prefix_caching
    shown = {row["setting"]: row for row in engine_defaults(run)}
    assert shown["batching"]["value"] == "whole_prompts"
    assert "encoder" in str(shown["batching"]["source"])
    assert isinstance(times_of(run.pools[0].engine), EncoderTimes)
    assert any("start token" in one for one in assumptions(run))


def test_memory_of_nllb_by_hand(tmp_path: Path) -> None:
    """54.5 G parameters in 16 bits; a token of prompt or output in 24 decoder layers.

    Keys and values of 16 heads of 128 over 4 ranks: 24 * 2 * 4 * 128 * 2 bytes on each.
    """
    keys = "parallel: {tp: 4}\nengine: {max_sequences: 64}\nformats: {weights: fp16}"
    run = served(tmp_path, "nllb-moe-54b", devices=4, cluster="v100-dgx2", serving=keys)
    on = run.deployment
    held = weights(on)
    # published (arXiv 2212.09811): the whole model needs four devices of 32 GB
    assert 4 * held.total == pytest.approx(2 * total_params(on.architecture), rel=0.01)
    assert run.memory.blocks > 0
    assert stage_cache_bytes(on) == [24 * 2 * 4 * 128 * 2]
    # and a single one with 288 of 1,536 experts: 2 * 2048 * 8192 weights and 10,240 biases each
    left = total_params(on.architecture) - (1536 - 288) * (2 * 2048 * 8192 + 10240)
    assert left == pytest.approx(12.6e9, rel=0.01)
    assert 2 * left < 32e9


def test_nllb_does_not_fit_one_device_of_32_gb(tmp_path: Path) -> None:
    run = served(tmp_path, "nllb-moe-54b", cluster="v100-dgx2", serving="formats: {weights: fp16}")
    assert run.memory.missing > 109e9 - 32 * 2**30


def test_a_request_holds_prompt_and_output(tmp_path: Path) -> None:
    """100 tokens of prompt, the start token, and 4 of 5 that came: 105, in 7 blocks of 16."""
    run = served(tmp_path, "t5-base", serving=ONE)
    log = simulate(run).logs[0]
    rows = log.rows.tolist()
    used = rows[9::11]
    assert max(used) == 7
    assert used[-1] == 0


def test_output_that_has_no_room_waits(tmp_path: Path) -> None:
    """Nobody is preempted: a request begins only where all that it may put out has room."""
    run = served(
        tmp_path, "t5-base",
        serving="engine: {max_sequences: 64, token_budget: 1024, memory_fraction: 0.02}\n"
        "workload: {arrivals: at_once, requests: 64, prompt: 512, output: 200}",
    )  # fmt: skip
    assert 712 < run.memory.tokens < 64 * 712
    asked = simulate(run).requests
    assert sum(asked.preemptions) == 0
    assert min(asked.finish) > 0


@pytest.mark.parametrize(
    ("devices", "serving", "says"),
    [
        (1, "engine: {batching: mixed}", "engine.batching: t5-base has an encoder: .*whole"),
        (1, "engine: {batching: prefill_first}", "engine.batching: .*whole_prompts or static"),
        (1, "engine: {prefix_caching: true}", "engine.prefix_caching: .*no beginning"),
        (1, "engine: {reserve_output: false}", "engine.reserve_output: .*preemption"),
        (2, "parallel: {dp: 2}", "parallel.dp: .*use tp and ep"),
        (2, "parallel: {pp: 2}", "parallel.pp: .*use tp and ep"),
        (
            2,
            "cluster: {disaggregation: prefill_decode, prefill: {}, decode: {}}",
            "cluster.disaggregation: .*not modelled",
        ),
        (
            1, "cluster: {replicas: 1, failures: {device_mtbf: 1 h, restart: 1 s}}",
            "cluster.failures: .*not modelled",
        ),
        (
            1, "engine: {speculative: {draft_tokens: 2, acceptance: 0.5, draft_model: llama-2-7b}}",
            "engine.speculative: .*not modelled",
        ),
    ],
)  # fmt: skip
def test_what_remains_refused(tmp_path: Path, devices: int, serving: str, says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        refuse(served(tmp_path, "t5-base", devices=devices, serving=serving))
    assert re.search(says, str(error.value))


def test_all_contradictions_at_once(tmp_path: Path) -> None:
    keys = "engine: {batching: mixed, prefix_caching: true}"
    with pytest.raises(ScenarioError) as error:
        refuse(served(tmp_path, "t5-base", serving=keys))
    assert [one.path for one in error.value.problems] == [
        "serving.engine.batching", "serving.engine.prefix_caching",
    ]  # fmt: skip


def test_an_encoder_guesses_no_tokens(tmp_path: Path) -> None:
    keys = "engine: {speculative: {draft_tokens: 2, acceptance: 0.5, draft_model: t5-base}}"
    with pytest.raises(ScenarioError, match="t5-base has an encoder: guessing"):
        refuse(served(tmp_path, "llama-2-7b", serving=keys))


def test_windows_and_other_widths_are_refused(tmp_path: Path) -> None:
    """A decoder with a window keeps other tokens of its own than of the prompt."""
    model = tmp_path / "windowed.yaml"
    model.write_text(
        "name: windowed\nsource: made up\nhidden: 256\nvocab: 1000\nlayers: 2\nencoder_layers: 2\n"
        "attention: {kind: gqa, heads: 4, kv_heads: 4, head_dim: 64, window: 64}\n"
        "ffn: {width: 512}\n"
    )
    with pytest.raises(ScenarioError, match="model: windowed has an encoder: decoder layers"):
        refuse(served(tmp_path, str(model)))


def test_sub_one_bit_switch_c_on_one_node(tmp_path: Path) -> None:
    """1.57 T parameters in 160 GB (QMoE): 30 heads and 2,048 experts over 6 devices."""
    keys = "formats: {experts: qmoe}\nparallel: {tp: 6, ep: 2}\n" + ONE
    run = served(tmp_path, "switch-c-2048", devices=6, serving=keys)
    refuse(run)
    found = simulate(run)
    assert found.requests.finish[0] > found.requests.first[0] > 0


def test_the_shipped_translation_runs() -> None:
    result = serve(load_serving(Path("scenarios/serving-nllb-moe-translation.yaml")))
    run: Serving = result.model.outcome.run
    assert result.model.memory.fits
    assert run.deployment.architecture.encoder
    # a step reads the decoder's weights but those of cross-attention's keys and values, 18 dense
    # networks, the head, and at least one expert in 6 layers; a quarter of each on a device
    square = 2048 * 2048
    params = 24 * (4 + 2) * square + (18 + 6) * 2 * 2048 * 8192 + 256206 * 2048
    gaps = result.model.outcome.gaps
    assert gaps is not None
    least = int(gaps.first.min()) / PS_PER_S
    assert least > 2 * params / 4 / run.deployment.chip.memory_bandwidth_bytes_per_s


def test_measured_curves_of_encoders_are_skipped_with_a_reason() -> None:
    case = Case("curve", "serving_curve", {**CASE, "model": "t5-base"})
    with pytest.raises(SkippedError, match="by memory alone"):
        Deployments(no_file()).of(Said(case, {"isl": 64, "osl": 8, "tp": 1}))


def test_groups_of_a_decode_step_with_cross_attention(tmp_path: Path) -> None:
    """Together they are the step; three sums over ranks in a dense layer, two beside experts."""
    keys = "parallel: {tp: 2}\n" + ONE
    run = served(tmp_path, "switch-base-8", devices=2, serving=keys)
    on, times = run.deployment, times_of(run.pools[0].engine)
    for batch, parts in decode_groups(on, times, 100, BATCHES).items():
        step = step_ps(times.lines(batch), 100 * batch) / PS_PER_S
        assert sum(parts.values()) == pytest.approx(step, rel=1e-3)
        once = float(all_reduce_s(np.array([float(batch)]), on)[0])
        assert parts["all-reduce"] == pytest.approx(6 * 3 * once + 6 * 2 * once)
    prompt = prompt_groups(on, times, 40)
    whole = (times.common_ps(40, 1) + times.chunks_ps([(40, 0)])) / PS_PER_S
    assert sum(prompt.values()) == pytest.approx(whole, rel=1e-5)
    assert prompt["encoder and host"] > 0


def test_the_shipped_switch_c_runs() -> None:
    """158.6 GB published for the whole model, on six devices of 48 GB."""
    found = serve(load_serving(Path("scenarios/serving-qmoe-switch-c.yaml"))).model
    assert found.memory.fits
    assert 6 * weights(found.outcome.run.deployment).total == pytest.approx(158.6e9, rel=0.02)
    assert min(found.outcome.requests.finish) > 0
