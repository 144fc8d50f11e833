"""What needs torch itself; skipped where it is not installed, as in the default environment."""

from pathlib import Path

import numpy as np
import pytest

from moesim.calibrate.bench import Effort
from moesim.calibrate.cases import Store, build
from moesim.calibrate.device import Target, find_target, torch_module
from moesim.calibrate.grid import DIFFERENTIABLE, grid
from moesim.calibrate.meter import LocalMeter
from moesim.calibrate.ranks import Ranks, collective_grid
from moesim.calibrate.session import Wish, calibrate
from moesim.calibrate.suite import Case, case
from moesim.calibrate.verify.memory import kept_bytes as predicted_bytes
from moesim.calibrate.verify.models import make
from moesim.calibrate.verify.plan import Small, Trial
from moesim.calibrate.verify.predict import dropped_share, own_params, shared_params
from moesim.calibrate.verify.steps import kept_bytes, measure_trial
from moesim.errors import CalibrationError

pytest.importorskip("torch", reason="needs torch: pip install 'moesim[calibrate]'")

QUICK = Effort(limit_s=0.001, batch_s=0.0, most=2, least=1)
MOE = Small(
    hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, width=64, vocab=128, num_experts=4,
    top_k=2, capacity_factor=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def meter() -> LocalMeter:
    return LocalMeter(find_target("cpu", threads=1))


def shrunk(one: Case) -> Case:
    """The smallest case of its kind that torch runs."""
    kept = ("heads", "kv_heads", "head_dim", "top_k")
    small = {"rows": 32, "width": 16, "length": 16, "payload": 256, "bytes": 4096, "params": 64}
    sizes = {
        name: value if name in kept else min(value, small.get(name, 16))
        for name, value in one.shape
    }
    return case(one.operator, one.variant, one.dtype, **sizes)


def test_every_kind_of_case_can_be_measured(meter: LocalMeter) -> None:
    on = meter.target
    kinds = {one.curve: one for one in grid(on, in_one_call=meter.in_one_call)}
    kinds |= {one.curve: one for one in grid(on, in_one_call=False)}
    for one in kinds.values():
        taken = meter.measure(shrunk(one), QUICK)
        assert 0 < taken.seconds < 1, one
        assert taken.repeats >= 1


def test_backward_passes_share_the_start_of_the_engine(meter: LocalMeter) -> None:
    store = Store(meter.target, in_one_call=True)
    small = case("elementwise", "norm_grad", "fp32", rows=8, width=64)
    assert build(small, store).times == 8
    large = case("elementwise", "norm_grad", "fp32", rows=4096, width=1024)
    assert build(large, store).times == 1
    assert all(
        build(shrunk(one), store)
        for one in grid(meter.target, in_one_call=True)
        if one.variant.removesuffix("_grad") in DIFFERENTIABLE
    )


def test_cold_operands_are_random_and_larger_than_the_caches(meter: LocalMeter) -> None:
    store = Store(meter.target, in_one_call=True)
    weights = store.cold("fp32", 512, 512)
    assert sum(w.numel() * 4 for w in weights) > 2 * meter.target.cache_bytes
    assert all(float(w.std()) > 0 for w in weights[:3])
    assert len({w.data_ptr() for w in weights}) == len(weights)


def test_a_case_that_does_not_fit_says_so(meter: LocalMeter) -> None:
    too_big = case("gemm", "", "fp32", m=2**24, n=2**24, k=2**24)
    with pytest.raises(CalibrationError, match="cannot be measured"):
        meter.measure(too_big, QUICK)


def test_a_device_that_is_not_there() -> None:
    absent = "mps" if not torch_module().backends.mps.is_available() else "tpu"
    with pytest.raises(CalibrationError, match="it sees"):
        find_target(absent)


@pytest.mark.parametrize("phase", ["train", "prefill", "decode"])
@pytest.mark.parametrize("model", [MOE, MOE.twin], ids=["moe", "dense"])
def test_models_run(meter: LocalMeter, model: Small, phase: str) -> None:
    trial = Trial(model=model, phase=phase, sequences=2, length=16, dtype="fp32")
    found = measure_trial(meter, trial, QUICK)
    assert found.timing.seconds > 0
    assert (found.memory_bytes is not None) == (phase == "train")
    assert found.dropped_fraction == pytest.approx(dropped_share(trial), abs=0.2)


@pytest.mark.parametrize("in_one_call", [True, False], ids=["one call", "loop"])
def test_a_step_lowers_the_loss(meter: LocalMeter, in_one_call: bool) -> None:
    from moesim.calibrate import pieces
    from moesim.calibrate.verify.steps import loss_of, optimizer_of

    if in_one_call and not meter.in_one_call:
        pytest.skip("this torch has no grouped product")
    torch = torch_module()
    torch.manual_seed(0)
    trial = Trial(model=MOE, phase="train", sequences=2, length=16, dtype="fp32")
    model = make(trial, "cpu", ranks=1, in_one_call=in_one_call)
    tokens = torch.randint(128, (2, 16))
    rotary = pieces.rotary(16, 16, model.table)
    optimizer = optimizer_of(model, "cpu")
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    losses = []
    for _ in range(8):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, tokens, rotary)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("model", [MOE, MOE.twin], ids=["moe", "dense"])
def test_parameters_and_kept_bytes_are_as_predicted(meter: LocalMeter, model: Small) -> None:
    trial = Trial(model=model, phase="train", sequences=4, length=64, dtype="fp32")
    made = make(trial, "cpu", ranks=1, in_one_call=meter.in_one_call)
    count = sum(weight.numel() for weight in made.parameters())
    assert count == shared_params(model) + own_params(model, 1)
    kept = kept_bytes(made, trial, meter.target)
    assert kept == pytest.approx(predicted_bytes(trial, fused_norm=False), rel=0.25)


def test_capacity_drops_the_last_choices() -> None:
    from moesim.calibrate import pieces

    torch = torch_module()
    experts = torch.tensor([[0, 1], [0, 1], [0, 2], [3, 0]])
    assigned = pieces.assign(experts, 4, slots=2)
    assert assigned.counts.tolist() == [2, 2, 1, 1]
    assert assigned.order.tolist() == [0, 2, 1, 3, 5, 6]
    assert assigned.tokens.tolist() == [0, 1, 0, 1, 2, 3]


def test_dispatch_and_combine_give_back_each_token() -> None:
    from moesim.calibrate import pieces

    torch = torch_module()
    x = torch.randn(16, 8)
    weights, experts = pieces.gate(torch.randn(16, 4), 2)
    assigned = pieces.assign(experts, 4)
    back = pieces.unpermute(pieces.permute(x, assigned.tokens), weights, assigned, 16)
    assert torch.allclose(back, x, atol=1e-5)


@pytest.mark.slow
def test_two_processes_exchange_tokens() -> None:
    on = find_target("cpu", threads=1, processes=2)
    trial = Trial(model=MOE, phase="train", sequences=2, length=16, dtype="fp32")
    with Ranks(on) as ranks:
        for one in {one.curve + one.shape[2:]: one for one in collective_grid(on)}.values():
            assert ranks.measure(shrunk(one), QUICK).seconds > 0
        answers = ranks.ask(measure_trial, trial, QUICK)
    assert len(answers) == 2
    assert all(one.timing.seconds > 0 for one in answers)


@pytest.mark.slow
def test_a_short_calibration_predicts_what_it_left_out(tmp_path: Path) -> None:
    done = calibrate(Wish(out=tmp_path, budget_s=25.0, device="cpu", threads=1, accept_noise=True))
    errors = [abs(one.error) for one in done.fitted.held_out]
    assert np.median(errors) < 0.3


def test_two_targets_of_one_machine() -> None:
    one, two = (find_target("cpu", threads=n) for n in (1, 2))
    assert isinstance(one, Target)
    assert one.fingerprint != two.fingerprint
