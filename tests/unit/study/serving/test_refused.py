"""What serving does not simulate yet is an error with its place, and nothing waits in silence."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario, load_serving
from moesim.study.serving.assumptions import assumptions
from moesim.study.serving.findings import ServingFindings
from moesim.study.serving.run import serve

WORKLOAD = "{arrivals: at_once, requests: 4, prompt: 100, output: 5}"


def _file(
    folder: Path, serving: str = "", *, model: str = "llama-3.1-8b", cluster: str = "devices: 1",
    workload: str = WORKLOAD, top: str = "",
) -> Path:  # fmt: skip
    file = folder / "serve.yaml"
    file.write_text(
        f"model: {model}\ncluster: {{profile: dgx-h100, {cluster}}}\n{top}"
        f"serving: {{{serving}workload: {workload}}}\n",
        encoding="utf-8",
    )
    return file


def _serve(file: Path) -> ServingFindings:
    return serve(load_serving(file))


@pytest.mark.parametrize(
    ("model", "devices", "parallel", "says"),
    [
        ("t5-base", 2, "{pp: 2}", "pp: t5-base has an encoder"),
        ("qwen2-57b-a14b", 8, "{tp: 8}", "tp: must divide the 28 attention heads"),
        ("dbrx", 6, "{tp: 6, ep: 3}", "tp: must divide the 48|ep: must divide the 16 experts"),
        ("llama-3.1-8b", 2, "{tp: 2, ep: 2}", "has no experts"),
        ("llama-3.1-8b", 40, "{pp: 40}", "pp: must be at most the 32 layers of llama-3.1-8b"),
        ("llama-3.1-8b", 8, "{tp: 32}", "32 ranks of a stage need more than 8 devices"),
        ("deepseek-v3", 72, "{dp: 72, ep: 72}", "ep: must divide the 256 experts of a layer"),
        (
            "deepseek-v3",
            72,
            "{dp: 72, ep: 72, redundant_experts: 31}",
            "ep: must divide the 256 experts and 31 copies of a layer",
        ),
        ("deepseek-v2-lite", 4, "{tp: 4, dcp: 3}", "dcp: must divide tp = 4"),
        ("llama-3.1-8b", 8, "{tp: 8, dcp: 2}", "dcp: must be at most 1: so many of the tp = 8"),
        ("qwen3-next-80b-a3b", 4, "{tp: 4, dcp: 2}", "is not modelled with linear attention"),
        ("gpt-oss-20b", 8, "{tp: 8, dcp: 2}", "is not modelled with sliding windows"),
    ],
)
def test_what_cannot_be_served(
    tmp_path: Path, model: str, devices: int, parallel: str, says: str
) -> None:
    file = _file(
        tmp_path, f"parallel: {parallel}, ", model=model, cluster=f"devices: {devices}"
    )  # fmt: skip
    with pytest.raises(ScenarioError, match=says):
        _serve(file)


def test_what_a_baseline_cannot_is_said_of_the_baseline(tmp_path: Path) -> None:
    file = _file(
        tmp_path, "parallel: {tp: 8}, ", cluster="devices: 8", top="baseline: {model: t5-base}\n"
    )
    says = r"baseline\.0: t5-base cannot run beside it: .* must divide the 12 attention heads"
    with pytest.raises(ScenarioError, match=says):
        _serve(file)


def test_requests_that_would_wait_for_ever(tmp_path: Path) -> None:
    """Prompts of 100 tokens are taken whole, and an iteration computes 64."""
    engine = "engine: {batching: whole_prompts, token_budget: 64}, "
    with pytest.raises(
        ScenarioError, match=r"no request can be served: .* a prompt may have 64 tokens"
    ):
        _serve(_file(tmp_path, engine))


def test_software_without_measured_kernels(tmp_path: Path) -> None:
    text = Path("hwprofiles/software/vllm.yaml").read_text(encoding="utf-8")
    start, end = text.index("kernels:"), text.index("efficiency:")
    (tmp_path / "bare.yaml").write_text(text[:start] + text[end:], encoding="utf-8")
    # the path is taken from the folder of the scenario
    with pytest.raises(ScenarioError, match="names no measured kernels"):
        _serve(_file(tmp_path, top="software: bare.yaml\n"))


def test_what_is_taken_for_granted_is_said(tmp_path: Path) -> None:
    said = assumptions(_serve(_file(tmp_path)).model.outcome.run)
    assert any("kernel by kernel" in one for one in said)
    assert not any("Experts" in one for one in said)


def test_only_run_takes_a_serving_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="which `moesim run` simulates"):
        load_scenario(_file(tmp_path))
