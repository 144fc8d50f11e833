"""Whatever an inference case says: records or a reason, never a fault."""

import copy
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.inference.kinds import INFERENCE
from moesim.study.validate.inference.pairs import compared_ratios
from moesim.study.validate.record import Record, as_json, blank
from moesim.study.validate.run import records_of

CASE: dict[str, Any] = {
    "quality": "A",
    "source": {"key": "made-up"},
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "hardware": {"chip": "H100-SXM5-80GB", "gpus": 1, "nodes": 1},
    "engine": {"name": "vllm", "version": "0.15.1", "flags": "max_num_seqs 128"},
    "parallel": {"tp": 1, "dp_attn": 1, "ep": 1},
    "precision": {"weights": "bf16", "kv": "bf16"},
    "workload": {"arrival": "closed_loop", "profile": "inferencex"},
    "measured": {
        "columns": ["isl", "osl", "concurrency", "ttft_ms", "tpot_ms"],
        "rows": [[64, 8, 2, 20.0, 8.0]],
    },
}
_SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([10**12, -(10**30), 0.5, 1e300, float("nan"), "", "x", "8", "see rows"])
    | st.sampled_from(["nvfp4", "fp8", "all", "inf", "open_loop", "all requests at t=0", "tp2"])
    | st.sampled_from(["sglang", "trtllm", "GB200", "A100-PCIe-80GB", "MI300X", "1..8"])
)
_VALUES = (
    _SCALARS
    | st.lists(_SCALARS, max_size=3)
    | st.dictionaries(st.text(max_size=3), _SCALARS, max_size=2)
)  # fmt: skip
_KEYS = {
    "": ("quality", "source", "model", "hardware", "engine", "parallel", "precision", "workload",
         "measured"),
    "hardware": ("chip", "gpus", "nodes"),
    "engine": ("name", "version", "flags"),
    "parallel": ("tp", "dp_attn", "ep", "pp", "replicas", "disagg", "offline", "exchange"),
    "precision": ("weights", "kv"),
    "workload": ("arrival", "profile", "dataset", "isl", "osl", "num_requests", "batch",
                 "prefix_tokens", "tokens_per_gpu", "batch_per_gpu", "kv_len", "hidden", "top_k",
                 "tokens_per_rank", "stage_seconds", "input_tokens", "output_tokens"),
    "measured": ("columns", "rows", "weights_gb_fp8", "tokens_s_per_gpu", "offline_tokens_s"),
}  # fmt: skip
_CHANGES = st.lists(
    st.sampled_from([(part, key) for part, keys in _KEYS.items() for key in keys]).flatmap(
        lambda place: st.tuples(st.just(place), _VALUES)
    ),
    min_size=1,
    max_size=3,
)


def made_up(words: dict[str, Any], kind: str = "serving_curve", name: str = "odd") -> Case:
    """Return a case of inference."""
    return Case(name, kind, words)


def no_file(ratios: tuple[dict[str, Any], ...] = ()) -> CaseFile:
    """Return a file that describes nothing."""
    return CaseFile(
        path=Path("made-up.yaml"), cases=(), models={}, hardware={}, pairs=(), contrasts=(),
        ratios=ratios,
    )  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(INFERENCE)), _CHANGES)
def test_odd_words_never_make_a_fault(
    kind: str, changes: list[tuple[tuple[str, str], Any]]
) -> None:
    words = copy.deepcopy(CASE)
    for (part, key), value in changes:
        place = words if not part else words[part]
        if isinstance(place, dict):
            place[key] = value
    for record in records_of(made_up(words, kind), no_file()):
        assert "internal error" not in record.reason, record.reason
        assert (record.status == "ran") is (record.predicted is not None)
        assert record.status == "ran" or record.reason
        as_json(record)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["moe", "dense", "metric", "measured_ratio_moe_over_dense", "basis"]),
        st.sampled_from(["one", "other", "[isl, osl, ratio]"]) | _VALUES | st.lists(_VALUES),
    )
)
def test_odd_pairs_never_make_a_fault(pair: dict[str, Any]) -> None:
    cases = [made_up(CASE, name=name) for name in ("one", "other")]
    records: list[Record] = [blank(case) for case in cases]
    for record in compared_ratios(no_file((pair,)), cases, records):
        assert record.status == "skipped"
        assert record.reason


APART = {
    "isl": 64, "osl": 8, "concurrency": 2, "prefill_workers": 1, "p_tp": 2, "p_dp_attn": 1,
    "p_ep": 1, "decode_workers": 2, "d_tp": 1, "d_dp_attn": 2, "d_ep": 2, "variant": None,
    "ttft_ms": 20.0, "tpot_ms": 8.0,
}  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B"]),
    st.sampled_from(["vllm", "sglang under NVIDIA Dynamo", "trtllm under NVIDIA Dynamo", "x"]),
    st.dictionaries(st.sampled_from(sorted(APART)), _SCALARS | st.just("PD split"), max_size=3),
)
def test_odd_pools_never_make_a_fault(model: str, engine: str, changes: dict[str, Any]) -> None:
    row = {**APART, **changes}
    words = {
        **CASE, "model": model, "engine": {"name": engine, "version": "0.8.1"},
        "parallel": {"disagg": True, "variants": "2 x TP4 replicas"},
        "measured": {"columns": list(row), "rows": [list(row.values())]},
    }  # fmt: skip
    for record in records_of(made_up(words), no_file()):
        assert "internal error" not in record.reason, record.reason
        assert record.status == "ran" or record.reason
