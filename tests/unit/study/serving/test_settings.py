"""The table of an engine's settings: every key, what the scenario says of it, what is left out."""

import pytest

from moesim.hardware.device import device
from moesim.hardware.profiles import load_accelerator
from moesim.spec.serving.engine import EngineSpec
from moesim.spec.serving.parallel import ServingParallelSpec
from moesim.spec.serving.speculative import SpeculativeSpec
from moesim.study.serving.engines import NAMES, Resolved, preset_of
from moesim.study.serving.presets.lookup import ENGINES
from moesim.study.serving.settings import resolved_values

H100 = device(load_accelerator("h100-sxm"))


def settings(asked: EngineSpec, cut: ServingParallelSpec | None = None) -> dict[str, Resolved]:
    return resolved_values(preset_of(asked.name, H100, asked.version, cut), asked)


def test_every_key_of_an_engine_has_a_row_with_a_source() -> None:
    keys = EngineSpec.model_fields.keys() - {"name", "version"}
    for name in NAMES:
        for version in ENGINES[name]:
            found = settings(EngineSpec.model_validate({"name": name, "version": version}))
            assert keys <= found.keys()
            assert all(one.source for one in found.values())
            assert all(str(one.value) not in ("", "None") for one in found.values())


def test_the_scenario_is_named_where_it_decides() -> None:
    asked = EngineSpec(name="vllm", version="0.19.0", max_sequences=7)
    found = settings(asked)
    assert (found["max_sequences"].value, found["max_sequences"].source) == (7, "the scenario")
    assert found["token_budget"].value == 8192
    assert found["engine"].value == (
        "vllm 0.17 (vllm 0.19.0: defaults of 0.17, the last known release before it)"
    )
    assert settings(EngineSpec(name="vllm"))["engine"].source == "the newest version known"


def test_limits_in_words() -> None:
    assert settings(EngineSpec())["max_model_tokens"].value == "what the cache holds"
    assert settings(EngineSpec(max_model_tokens=4096))["max_model_tokens"].value == 4096


def test_graphs_in_words() -> None:
    """vLLM's sizes: 1, 2, 4; 8 to 256 by 8: 32; 272 to 512 by 16: 16; 51 in all."""
    assert settings(EngineSpec())["graph_sizes"].value == "1 2 4 8 to 512 (51 sizes)"
    own = settings(EngineSpec(graph_sizes=(1, 9)))["graph_sizes"]
    assert (own.value, own.source) == ("1 9", "the scenario")
    eager = settings(EngineSpec(graphs=False))
    assert (eager["graphs"].value, eager["graph_sizes"].value) == (False, "none")
    compiled = settings(EngineSpec(name="tensorrt-llm", version="0.14"))
    assert compiled["graph_sizes"].value == "any: launched from compiled code"


def test_guesses_in_words() -> None:
    """1 + 0.5 + 0.25 tokens a step."""
    asked = EngineSpec(speculative=SpeculativeSpec(draft_tokens=2, acceptance=0.5, mtp=True))
    assert settings(asked)["speculative"].value == (
        "2 guesses by the model's own module, 1.75 tokens a step"
    )


def test_the_exchange_is_that_of_the_layout() -> None:
    assert settings(EngineSpec())["exchange"].value == "none"
    own = settings(EngineSpec(), ServingParallelSpec(dp=2, exchange="deepep"))["exchange"]
    assert (own.value, own.source) == ("deepep", "the scenario")
    assert settings(EngineSpec(), ServingParallelSpec(dp=2))["exchange"].value == (
        "allgather_reducescatter"
    )


@pytest.mark.parametrize(
    ("asked", "key", "modelled"),
    [
        (EngineSpec(version="0.6"), "chunked_prefill", False),
        (EngineSpec(version="0.8"), "chunked_prefill", True),
        (EngineSpec(name="tensorrt-llm"), "chunked_prefill", True),
        (EngineSpec(version="0.15"), "async_scheduling", True),
        (EngineSpec(name="sglang"), "habit", False),
    ],
)
def test_what_is_not_simulated_says_so(asked: EngineSpec, key: str, modelled: bool) -> None:
    assert settings(asked)[key].source.startswith("not modelled") != modelled


def test_the_scheduler_is_the_one_that_runs() -> None:
    assert "the last first" in str(settings(EngineSpec())["scheduler"].value)
    held = settings(EngineSpec(batching="static", reserve_output=True))["scheduler"].value
    assert held == (
        "the next batch when all of the last have finished, in order of arrival; nobody is "
        "preempted"
    )
    assert settings(EngineSpec(batching="whole_prompts"))["chunked_prefill"].value is False
