"""Whatever a case, its model or its machine says: records or a reason, never a fault."""

import copy
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.errors import MoesimError
from moesim.spec.cases import Case
from moesim.study.validate.contrasts import compared_pairs
from moesim.study.validate.kinds import KINDS, compare
from moesim.study.validate.record import as_json, blank
from moesim.study.validate.run import records_of
from moesim.study.validate.skipped import SkippedError
from tests.unit.study.validate.made_up import HARDWARE, MODELS, STEP, case, case_file

_SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([10**12, -(10**30), 0.5, 2.0, 1e300, "", "x", "8", "full", "excluded"])
    | st.sampled_from(["natural", "token drop", "fp8", "deepep", "forced balance", "1F1B", "mla"])
    | st.text(max_size=5)
)
_VALUES = (
    _SCALARS
    | st.lists(_SCALARS, max_size=3)
    | st.dictionaries(st.text(max_size=3), _SCALARS, max_size=2)
)  # fmt: skip

_KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("quality", "cls", "source", "model", "hardware", "chips", "parallel", "precision",
         "options", "measured", "derived", "model_overrides", "guesses"),
    "parallel": ("tp", "pp", "vpp", "ep", "etp", "cp", "dp", "fsdp", "mbs", "gbs", "seq", "pdb",
                 "ga", "tokens_before_topk", "local_experts", "top_k"),
    "options": ("routing", "recompute", "dispatcher", "capacity_factor", "ep_overlap", "schedule",
                "overlap_grad_reduce", "optimizer_cpu_offload_pct", "sequence_parallel",
                "framework", "optimizer", "unheard_of"),
    "measured": ("step_time_s", "forward_ms", "mfu_pct", "mfu_peak_tflops", "peak_memory_gb",
                 "model_tflops_per_gpu", "speedup_over_tutel_dropless", "gpu_span_ms"),
    "derived": ("step_time_s", "gflop_per_token_causal", "tokens_per_s_per_gpu"),
    "model_overrides": ("layers", "heads", "hidden", "experts", "attn", "moe_every", "unheard_of"),
    "the model": ("layers", "dense_first_layers", "hidden", "vocab", "attn", "dense_ffn", "gated",
                  "experts", "top_k", "expert_ffn", "shared_expert_ffn", "mtp", "moe_every",
                  "encoder_decoder", "tied_embeddings", "src"),
    "attention": ("type", "heads", "kv_heads", "head_dim", "q_lora", "kv_lora", "qk_nope", "v_dim"),
    "the machine": ("chip", "test_calibration"),
}  # fmt: skip
"""What a case can be changed in."""

_CHANGES = st.lists(
    st.sampled_from([(part, key) for part, keys in _KEYS.items() for key in keys]).flatmap(
        lambda place: st.tuples(st.just(place), _VALUES)
    ),
    min_size=1,
    max_size=3,
)


def _words(kind: str, model: str) -> dict[str, Any]:
    words = copy.deepcopy(STEP) | {"kind": kind, "model": model}
    if kind == "kernel":
        words["parallel"] = {"tokens_before_topk": 512, "local_experts": 4, "top_k": 2}
    if kind == "ratio":
        words["measured"] = {"speedup_over_tutel_dropless": 2.0}
    return words


def _place(words: dict[str, Any], model: Any, machine: Any, part: str) -> Any:
    if part == "attention":
        return model.get("attn")
    named = {"": words, "the model": model, "the machine": machine}
    return named[part] if part in named else words.setdefault(part, {})


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(MODELS)), _CHANGES)
def test_odd_words_never_make_a_fault(
    kind: str, model: str, changes: list[tuple[tuple[str, str], Any]]
) -> None:
    words, models, machines = _words(kind, model), copy.deepcopy(MODELS), copy.deepcopy(HARDWARE)
    for (part, key), value in changes:
        place = _place(words, models[model], machines["our-boxes"], part)
        if isinstance(place, dict):
            place[key] = value
    changed, file = Case("odd", kind, words), case_file(models, machines)
    try:
        found = compare(changed, file, blank(changed))
    except (SkippedError, MoesimError) as error:
        assert str(error)
        return
    for record in found:
        assert (record.status == "ran") is (record.predicted is not None)
        assert record.status == "ran" or record.reason
        as_json(record)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([key for keys in _KEYS.values() for key in keys]), _VALUES))
def test_random_mappings_are_skipped_with_a_reason(words: dict[str, Any]) -> None:
    for kind in ("train_step", "kernel", "unheard of"):
        for record in records_of(Case("odd", kind, words), case_file()):
            assert record.status == "skipped"
            assert record.reason
            assert "internal error" not in record.reason


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["dense", "moe", "a", "b", "speedup", "flop_ratio", "efficiency_ratio"]),
        st.sampled_from(["step", "other"]) | _VALUES,
    )
)
def test_odd_pairs_never_make_a_fault(pair: dict[str, Any]) -> None:
    cases = [case(), case(id="other")]
    for record in compared_pairs(case_file(pairs=(pair,), contrasts=(pair,)), cases, []):
        assert record.status == "skipped"
        assert record.reason
