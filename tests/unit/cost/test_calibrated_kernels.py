"""A calibrated device in a run: every operator by its curve, as the calibration itself says."""

import json
from pathlib import Path

import pytest

from moesim.calibrate.files import write
from moesim.calibrate.fit import Fitted, fit, predict_one
from moesim.calibrate.ranks import collective_grid
from moesim.calibrate.session import Calibration
from moesim.calibrate.suite import case
from moesim.cost.calibrated_kernels import attention_columns, attention_role
from moesim.cost.pricing import Machine, machine, price
from moesim.model.operators import (
    AttentionCore,
    Collective,
    Exchange,
    Gemm,
    GroupedGemm,
    Pointwise,
)
from moesim.spec.load import load_scenario
from moesim.study.resolve import resolve
from moesim.study.run import run
from tests.unit.calibrate.made_up import samples, target

MODEL = {
    "name": "small", "source": "made up", "hidden": 256, "vocab": 1024, "layers": 2,
    "attention": {"kind": "gqa", "heads": 4, "kv_heads": 2, "head_dim": 64},
    "moe": {"num_experts": 8, "top_k": 2, "expert_width": 512},
}  # fmt: skip


def scenario(folder: Path, processes: int) -> tuple[Path, Fitted]:
    """Write the profiles of a made-up device and a scenario on it."""
    on = target(processes=processes)
    found = samples()
    if processes > 1:
        found += samples(collective_grid(on))
    fitted = fit(on, found, folds=0)
    done = Calibration(
        target=on, name=on.slug, samples=tuple(found), fitted=fitted, spread=0.01,
        conditions="quiet", measured=len(found),
    )  # fmt: skip
    written = write(done, folder / "out")
    (folder / "model.yaml").write_text(json.dumps(MODEL), encoding="utf-8")
    text = {
        "model": "model.yaml",
        "cluster": {"profile": f"out/{written.cluster.name}", "devices": processes},
        "software": f"out/{written.software.name}",
        "parallel": {"ep": processes, "etp": 1},
        "training": {"sequence_length": 128, "global_batch": 4, "precision": "fp32"},
    }
    path = folder / "calibrated.yaml"
    path.write_text(json.dumps(text), encoding="utf-8")
    return path, fitted


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Fitted]:
    path, fitted = scenario(tmp_path_factory.mktemp("two"), 2)
    made = resolve(load_scenario(path))
    on = machine(made.cluster.device, made.cluster.topology, made.software, made.layout)
    return on, fitted


@pytest.mark.parametrize("processes", [1, 2])
def test_every_operator_of_a_run_is_measured(tmp_path: Path, processes: int) -> None:
    path, _ = scenario(tmp_path, processes)
    base = run(load_scenario(path)).summary()["model"]["operator_times"]
    assert base["tags"] == {"measured": pytest.approx(1.0)}
    (kernels,) = (path.parent / "out").glob("*-torch.yaml")
    assert list(base["origins"]) == [kernels.stem]
    assert 0.0 < base["uncertainty_fraction"] < 0.6


def seconds(operator: Gemm | GroupedGemm | AttentionCore | Pointwise, on: Machine) -> float:
    return price(operator, on).seconds


def expected(fitted: Fitted, operator: str, variant: str, **sizes: float) -> float:
    return predict_one(fitted, case(operator, variant, "fp32", **sizes))


def test_products(two: tuple[Machine, Fitted]) -> None:
    on, fitted = two
    plain = Gemm(name="g", module="mlp", input_from="x", m=96, n=512, k=256, dtype="fp32")
    assert seconds(plain, on) == pytest.approx(
        expected(fitted, "gemm", "", m=96, n=512, k=256), rel=2e-3
    )


def test_experts(two: tuple[Machine, Fitted]) -> None:
    on, fitted = two
    grouped = GroupedGemm(
        name="e", module="moe", input_from="x", rows=(64, 0, 32, 160), n=512, k=256, dtype="fp32"
    )
    assert seconds(grouped, on) == pytest.approx(
        expected(fitted, "grouped_gemm", "grouped_mm", experts=3, rows=256, n=512, k=256), rel=2e-3
    )


def core(queries: int, keys: int, pairs: float) -> AttentionCore:
    return AttentionCore(
        name="a", module="core_attn", input_from="x", sequences=4, queries=4 * queries,
        keys=4 * keys, own_keys=4 * keys, pairs=4 * pairs, heads=4, kv_heads=2, qk_dim=64,
        v_dim=64, dtype="fp32",
    )  # fmt: skip


def test_attention(two: tuple[Machine, Fitted]) -> None:
    on, fitted = two
    sizes = {"sequences": 4, "length": 256, "heads": 4, "kv_heads": 2, "head_dim": 64}
    causal = core(256, 256, 256 * 257 / 2)
    assert seconds(causal, on) == pytest.approx(
        expected(fitted, "attention", "prefill", **sizes), rel=2e-3
    )
    assert seconds(core(1, 256, 256), on) == pytest.approx(
        expected(fitted, "attention", "decode", **sizes), rel=2e-3
    )


def test_masks_are_told_by_their_pairs() -> None:
    """Causal 1, full 0; a window of 64 of 256 keys hides more than the diagonal does."""
    assert attention_columns(core(256, 256, 256 * 257 / 2))["causal"] == pytest.approx(1.0)
    assert attention_columns(core(256, 256, 256.0 * 256))["causal"] == 0.0
    windowed = 64 * 65 / 2 + 192 * 64
    assert attention_columns(core(256, 256, windowed))["causal"] > 1.2
    assert attention_role(core(1, 256, 256.0)) == "decode"
    assert attention_role(core(256, 256, 1.0)) == "prefill"


def test_norms_and_permutations(two: tuple[Machine, Fitted]) -> None:
    on, fitted = two
    norm = Pointwise(
        name="ffn_norm", module="layernorm", input_from="x", rows=128, elements_read=2 * 128 * 256,
        elements_written=2 * 128 * 256, elements_saved=0.0, dtype="fp32",
    )  # fmt: skip
    assert seconds(norm, on) == pytest.approx(
        expected(fitted, "elementwise", "norm", rows=128, width=256), rel=2e-3
    )
    permute = Pointwise(
        name="permute", module="moe", input_from="x", rows=128, elements_read=128.0 * 256,
        elements_written=2.0 * 128 * 256, elements_saved=0.0, dtype="fp32",
    )  # fmt: skip
    assert seconds(permute, on) == pytest.approx(
        expected(fitted, "elementwise", "permute", rows=128, width=256, top_k=2), rel=2e-3
    )


def test_transfers_between_processes(two: tuple[Machine, Fitted]) -> None:
    on, fitted = two
    reduce = Collective(
        name="r", module="tp", kind="all_reduce", group="dp_cp", payload_bytes=2.0**20
    )
    assert price(reduce, on).seconds == pytest.approx(
        expected(fitted, "collective", "all_reduce", ranks=2, payload=2**20, skew=1), rel=2e-3
    )
    sent = Exchange(
        name="dispatch", module="moe", tokens=128, hidden=256, top_k=2, num_experts=8, copies=2.0,
        dtype="fp32", backward_dtype="fp32",
    )  # fmt: skip
    payload = 128 * 2 * 256 * 4
    assert price(sent, on).seconds == pytest.approx(
        expected(fitted, "collective", "all_to_all", ranks=2, payload=payload, skew=1), rel=2e-3
    )
