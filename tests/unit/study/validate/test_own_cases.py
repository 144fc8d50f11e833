"""The cases that moesim brings: enough of them, over all mechanisms, each with its source."""

import re

import pytest

from moesim.spec.cases import Case, CaseFile, read_cases
from moesim.spec.shipped import shipped


@pytest.fixture(scope="module")
def file() -> CaseFile:
    return read_cases(shipped("validation") / "cases" / "training.yaml")


def _option(case: Case, name: str) -> str:
    return str(case.part("options").get(name, ""))


def test_there_are_at_least_sixty_and_a_core(file: CaseFile) -> None:
    assert len(file.cases) >= 60
    assert sum(case.words.get("core") is True for case in file.cases) >= 40


def test_every_case_says_where_its_figures_are_from(file: CaseFile) -> None:
    for case in file.cases:
        assert re.search(r"@[0-9a-f]{7,}|arXiv \d{4}\.\d{5} (Table|sec\.)", case.text("source"))
        assert case.text("quality") in ("A", "B", "C")
        assert case.part("measured"), case.id


def test_every_model_and_machine_is_described(file: CaseFile) -> None:
    assert {case.text("model") for case in file.cases} == set(file.models)
    assert {case.text("hardware") for case in file.cases} == set(file.hardware)
    assert all(model.get("src") for model in file.models.values())


@pytest.mark.parametrize("degree", ["tp", "pp", "vpp", "cp", "ep", "etp", "fsdp"])
def test_every_kind_of_parallelism_is_there(file: CaseFile, degree: str) -> None:
    def cut(case: Case) -> bool:
        return case.part("parallel").get(degree) not in (None, 1, False)

    assert any(cut(case) for case in file.cases)


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("recompute", "full"), ("recompute", "selective"), ("recompute", "mla_up_proj"),
        ("recompute", "moe"), ("recompute", "none"), ("routing", "forced"), ("routing", "natural"),
        ("routing", "drop"), ("dispatcher", "alltoall"), ("dispatcher", "deepep"),
        ("dispatcher", "hybridep"), ("ep_overlap", "True"), ("cuda_graph", "transformer_engine"),
        ("optimizer_cpu_offload_pct", "100"), ("activation_offload", "proj"),
    ],
)  # fmt: skip
def test_every_mechanism_is_there(file: CaseFile, option: str, word: str) -> None:
    assert any(word in _option(case, option) for case in file.cases)


@pytest.mark.parametrize(
    "chip", ["H100", "H800", "A100 SXM", "A100 PCIe", "B200 SXM", "GB200", "v3", "v6e", "MI300X"]
)
def test_every_chip_is_there(file: CaseFile, chip: str) -> None:
    assert any(chip in str(words["chip"]) for words in file.hardware.values())


def test_every_kind_class_and_precision_is_there(file: CaseFile) -> None:
    assert {case.kind for case in file.cases} == {
        "train_step", "moe_layer_fwd_bwd", "chunk_fwd_bwd", "kernel", "ratio",
    }  # fmt: skip
    assert {case.text("cls") for case in file.cases} == {"dense", "moe"}
    assert {"bf16", "fp16", "mxfp8", "fp8-current-scaling"} <= {
        case.text("precision") for case in file.cases
    }


def test_pairs_are_of_cases_that_are_there(file: CaseFile) -> None:
    ids = {case.id for case in file.cases}
    assert len(file.pairs) >= 15
    assert len(file.contrasts) >= 20
    assert {pair[side] for pair in file.pairs for side in ("dense", "moe")} <= ids
    assert {one[side] for one in file.contrasts for side in ("a", "b")} <= ids


def test_published_rates_agree_with_published_flop(file: CaseFile) -> None:
    # FLOP per token = TFLOP/s over tokens/s: within rounding the same for one model and length.
    seen: dict[tuple[str, ...], list[float]] = {}
    for case in file.cases:
        measured = case.part("measured")
        if case.id.startswith("mbridge") and measured.get("model_tflops_per_gpu"):
            key = (case.text("model"), str(case.part("model_overrides")))
            rate = measured["model_tflops_per_gpu"] / measured["tokens_per_s_per_gpu"]
            seen.setdefault(key, []).append(rate)
    assert len(seen) >= 6
    for rates in seen.values():
        assert max(rates) / min(rates) < 1.02
