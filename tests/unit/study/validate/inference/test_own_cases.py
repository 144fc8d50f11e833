"""The serving cases that moesim brings: enough of them, over all mechanisms, each with its source;
every one is compared or says why not, and none of them got worse."""

import re
from collections.abc import Callable, Mapping
from math import comb
from typing import Any

import pytest

from moesim.spec.cases import Case, CaseFile, read_cases
from moesim.spec.shipped import shipped
from moesim.spec.validate import read_document
from moesim.study.validate.expected import changes, read_expected
from moesim.study.validate.figures import number
from moesim.study.validate.inference.judged import KINDS
from moesim.study.validate.inference.kinds import INFERENCE
from moesim.study.validate.inference.memory import holds_memory
from moesim.study.validate.inference.models import class_of, model_of
from moesim.study.validate.inference.words import Said, engine_of, rows, software_of
from moesim.study.validate.record import Record
from moesim.study.validate.run import validate
from moesim.study.validate.skipped import SkippedError

CASES = shipped("validation") / "cases"


@pytest.fixture(scope="module")
def file() -> CaseFile:
    return read_cases(CASES / "inference.yaml")


@pytest.fixture(scope="module")
def records(file: CaseFile) -> list[Record]:
    return validate(file, file.cases)


def test_there_are_at_least_sixty_and_all_are_core(file: CaseFile) -> None:
    assert len(file.cases) >= 60
    assert all(case.words.get("core") is True for case in file.cases)
    training = {case.id for case in read_cases(CASES / "training.yaml").cases}
    assert not training & {case.id for case in file.cases}


def test_every_kind_and_quality_is_there_and_nothing_doubtful(file: CaseFile) -> None:
    assert {case.kind for case in file.cases} == set(INFERENCE)
    assert {case.text("quality") for case in file.cases} == {"A", "A-", "B"}


def test_every_case_says_where_its_figures_are_from(file: CaseFile) -> None:
    sources: Mapping[str, Any] = read_document(file.path).data["sources"]
    for case in file.cases:
        named = case.part("source")
        where = sources[str(named["key"])]["where"]
        assert re.search(r"@[0-9a-f]{7,}|v\d+\.\d+\.\d+|mlsys\.org", where), case.id
        assert named["locator"], case.id
        assert case.part("measured"), case.id
    assert set(sources) == {str(case.part("source")["key"]) for case in file.cases}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_every_engine_serves_dense_models_and_mixtures(file: CaseFile, engine: str) -> None:
    found = set()
    for case in file.cases:
        if software_of(case).startswith(engine) and case.kind.startswith(("serving", "offline")):
            found.add(class_of(model_of(case.text("model"), file)))
    assert found == {"dense", "moe"}


@pytest.mark.parametrize(
    "chip",
    ["A100", "H100", "H200", "H800", "H20-", "B200", "GB200", "RTX-PRO", "RTX-4090", "MI300X"],
)
def test_every_chip_is_there(file: CaseFile, chip: str) -> None:
    assert any(str(case.part("hardware")["chip"]).startswith(chip) for case in file.cases)


@pytest.mark.parametrize("degree", ["tp", "ep", "dp_attn", "moe_tp", "replicas"])
def test_every_kind_of_parallelism_is_there(file: CaseFile, degree: str) -> None:
    assert any((number(case.part("parallel").get(degree)) or 1) > 1 for case in file.cases)


@pytest.mark.parametrize("format_", ["bf16", "fp16", "fp8", "nvfp4", "mxfp4", "INT4"])
def test_every_number_format_is_there(file: CaseFile, format_: str) -> None:
    def said(case: Case) -> str:
        return f"{case.part('precision')} {rows(case)}"

    assert any(format_ in said(case) for case in file.cases)


_LOADS: dict[str, Callable[[float], bool]] = {
    "one": lambda load: load == 1,
    "few": lambda load: 1 < load <= 8,
    "hundreds": lambda load: 100 <= load < 1000,
    "thousands": lambda load: load >= 1000,
}


@pytest.mark.parametrize("load", _LOADS)
def test_few_and_many_requests_at_a_time(file: CaseFile, load: str) -> None:
    loads = (
        number(row.get(name))
        for case in file.cases
        for row in rows(case)
        for name in ("concurrency", "max_concurrency")
    )
    assert any(_LOADS[load](one) for one in loads if one is not None)


def test_prefill_and_decode_apart_are_there_for_two_engines(file: CaseFile) -> None:
    apart = [case for case in file.cases if case.part("parallel").get("disagg") is True]
    assert {software_of(case).split(" ")[0] for case in apart} >= {"sglang", "tensorrt-llm"}


@pytest.mark.parametrize("word", ["open_loop", "closed_loop", "t=0"])
def test_every_kind_of_arrival_is_there(file: CaseFile, word: str) -> None:
    assert any(word in str(case.part("workload").get("arrival")) for case in file.cases)


def test_pairs_are_of_cases_that_are_there(file: CaseFile) -> None:
    ids = {case.id for case in file.cases}
    assert len(file.ratios) >= 12
    assert {pair[side] for pair in file.ratios for side in ("moe", "dense")} <= ids
    for pair in file.ratios:
        classes = [
            class_of(model_of(case.text("model"), file))
            for side in ("moe", "dense")
            for case in file.cases
            if case.id == pair[side]
        ]
        assert classes == ["moe", "dense"]


def _row(file: CaseFile, name: str, *first: object) -> Mapping[str, Any]:
    case = next(case for case in file.cases if case.id == name)
    return next(row for row in rows(case) if tuple(row.values())[: len(first)] == first)


def test_measured_ratios_are_those_of_the_rows(file: CaseFile) -> None:
    # By hand: 4 requests of 921.6 tokens in 59.32 + 920.6 * 5.029 ms: 0.786 tokens per ms; dense
    # 4 * 921.6 in 121.3 + 920.6 * 17.41 ms: 0.228; 3.44 times.
    name, other = "vllm-gpt-oss-120b-h100-tp2", "vllm-llama-3.1-70b-h100-fp8-tp2"
    sides = [_row(file, one, 1024, 1024, 4) for one in (name, other)]
    rates = [921.6 / (one["ttft_ms"] + one["tpot_ms"] * 920.6) for one in sides]
    pair = next(one for one in file.ratios if one["moe"] == name)
    assert pair["measured_ratio_moe_over_dense"][0] == [4, 3.44, 0.29]
    assert rates[0] / rates[1] == pytest.approx(3.44, abs=0.005)

    name, other = "trtllm-mixtral-8x7b-h100-fp16-offline", "trtllm-llama-3.1-70b-h100-fp16-offline"
    column = "total_output_tokens_per_s"
    sides = [_row(file, one, 2048, 2048) for one in (name, other)]
    pair = next(one for one in file.ratios if one["moe"] == name)
    ratio = {(i, o): r for i, o, r in pair["measured_ratio_moe_over_dense"]}[2048, 2048]
    assert ratio == pytest.approx(sides[0][column] / sides[1][column], abs=0.005)


def test_every_case_is_compared_or_says_why_not(file: CaseFile, records: list[Record]) -> None:
    assert {case.id for case in file.cases} <= {one.case for one in records}
    for one in records:
        assert one.status == "ran" or one.reason, one
        assert not one.reason.startswith("internal error"), one
    compared = {one.case for one in records if one.status == "ran"}
    assert {case.id for case in file.cases} <= compared


def test_a_published_rate_is_the_time_that_it_means(records: list[Record]) -> None:
    # 4096 tokens to 8 of 256 experts on 8 ranks reach 8 (1 - C(224, 8) / C(256, 8)) = 5.30 ranks
    # each; a row is 7168 bytes in fp8 with a 4 byte scale for each 128. At 153 GB/s: 1.05 ms.
    reached = 8 * (1 - comb(224, 8) / comb(256, 8))
    moved = 4096 * reached * (7168 + 4 * 7168 / 128)
    found = next(
        one
        for one in records
        if one.case == "exchange-deepep-h800-normal-ep8" and one.metric == "dispatch_us"
    )
    assert found.measured == pytest.approx(1e6 * moved / 153e9, rel=1e-3)


def test_weights_are_parameters_times_their_width(records: list[Record]) -> None:
    # Switch-C has 1.571 T parameters (Fedus et al. 2021, Table 9), two bytes each.
    found = next(one for one in records if one.metric == "uncompressed_tb")
    assert found.predicted == pytest.approx(2 * 1.571, rel=0.005)


def test_no_group_is_further_off_than_recorded(records: list[Record]) -> None:
    # A group's kind stands third in its name.
    recorded = read_expected(shipped("validation") / "expected.csv")
    found = changes({name: one for name, one in recorded.items() if name[2] in KINDS}, records)
    again = "moesim validate --record validation/expected.csv"
    assert found.worse == (), f"explain it in the commit, then: {again}"
    assert found.new == (), again


def test_engines_of_rows_are_known(file: CaseFile) -> None:
    served = [
        case
        for case in file.cases
        if case.kind.startswith(("serving", "offline")) and not holds_memory(case)
    ]
    unknown = []
    for case in served:
        for row in rows(case):
            try:
                engine_of(Said(case, row))
            except SkippedError:
                unknown.append(case.id)
    assert unknown == []
