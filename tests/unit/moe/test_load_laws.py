"""Laws of expert shares: streams per layer, zipf and power law, and the presets."""

from collections.abc import Sequence

import numpy as np
import pytest

from moesim.moe.counts import Batch, draw, inclusion, layer_streams
from moesim.moe.loads import LoadLaw, Shares, cv_of, draw_shares, sigma_of
from moesim.spec.load_presets import PRESETS

_LAWS = [
    LoadLaw(law="even"),
    LoadLaw(law="uniform"),
    LoadLaw(law="dirichlet", cv=0.8),
    LoadLaw(law="lognormal", cv=0.8),
    LoadLaw(law="zipf", exponent=0.7),
    LoadLaw(law="power_law", exponent=1.01, tokens=4096),
]


def preset(name: str) -> LoadLaw:
    found = PRESETS[name]
    return LoadLaw(law=found.law, cv=found.cv or 0.0)


def layers(law: LoadLaw, experts: int, streams: Sequence[np.random.Generator]) -> Shares:
    return np.stack([draw_shares(law, experts, stream) for stream in streams])


@pytest.mark.parametrize("law", _LAWS)
def test_another_layer_leaves_the_other_layers_as_they_were(law: LoadLaw) -> None:
    few = layers(law, 64, layer_streams(5, "shares", [3, 4, 9]))
    many = layers(law, 64, layer_streams(5, "shares", [3, 4, 7, 9, 11]))
    assert (few == many[[0, 1, 3]]).all()
    assert few.sum(axis=1) == pytest.approx(np.ones(3))
    batch = Batch(tokens=500, top_k=6, phi=1.7)
    p_few, p_many = inclusion(few, 6), inclusion(many, 6)
    counts_few = draw(p_few, batch, layer_streams(5, "counts", [3, 4, 9]))
    counts_many = draw(p_many, batch, layer_streams(5, "counts", [3, 4, 7, 9, 11]))
    assert (counts_few == counts_many[[0, 1, 3]]).all()


@pytest.mark.parametrize("law", [law for law in _LAWS if law.law != "even"])
def test_labels_of_experts_do_not_matter(law: LoadLaw) -> None:
    """Imbalance of 8 ranks with labels as drawn and permuted: same mean within 4 sigma."""
    generators = layer_streams(1, "shares", range(600))
    shares = layers(law, 32, generators)
    order = np.random.default_rng(0).permutation(32)
    found = []
    for labels in (np.arange(32), order):
        counts = draw(inclusion(shares[:, labels], 4), Batch(tokens=256, top_k=4), generators)
        rows = counts.reshape(600, 8, 4).sum(axis=2)
        found.append(rows.max(axis=1) / rows.mean(axis=1))
    error = (found[0].var() / 600 + found[1].var() / 600) ** 0.5
    assert abs(float(found[0].mean() - found[1].mean())) < 4 * error


def test_sigma_and_cv_of_a_lognormal_say_the_same() -> None:
    """cv 1 is sigma^2 = ln 2; ln(E s) has the sd sigma but for the common norm."""
    assert sigma_of(1.0) == pytest.approx(np.log(2) ** 0.5)
    assert cv_of(np.log(2) ** 0.5) == pytest.approx(1.0)
    # the preset's spread is that of sigma 1.05: exp(1.1025) - 1 = 2.0117
    assert preset("deepseek_r1_inference").cv == pytest.approx(2.0117**0.5, rel=1e-4)
    shares = layers(LoadLaw(law="lognormal", cv=1.0), 20_000, layer_streams(2, "x", [0]))
    assert float(np.log(shares).std()) == pytest.approx(np.log(2) ** 0.5, rel=0.02)


def test_zipf_shares_are_powers_of_ranks_dealt_out_at_random() -> None:
    shares = layers(LoadLaw(law="zipf", exponent=1.0), 4, layer_streams(1, "x", range(300)))
    # 1 + 1/2 + 1/3 + 1/4 = 25/12
    assert np.sort(shares, axis=1)[:, ::-1] == pytest.approx(
        np.tile(np.array([12, 6, 4, 3]) / 25, (300, 1))
    )
    # each expert leads with probability 1/4: 75 of 300, sd 7.5
    leads = np.bincount(shares.argmax(axis=1), minlength=4)
    assert np.abs(leads - 75).max() < 4 * 7.5


@pytest.mark.parametrize(("exponent", "cv", "fullest"), [(1.01, 1.78, 8.2), (1.2, 2.5, 15.0)])
def test_power_law_is_as_skewed_as_aiconfigurators(
    exponent: float, cv: float, fullest: float
) -> None:
    """Published for E = 256, T = 4096 by simulation with two digits: within 4 %."""
    law = LoadLaw(law="power_law", exponent=exponent, tokens=4096)
    shares = 256 * layers(law, 256, layer_streams(4, "x", range(1500)))
    assert float(shares.std(axis=1).mean()) == pytest.approx(cv, rel=0.04)
    assert float(shares.max(axis=1).mean()) == pytest.approx(fullest, rel=0.04)


def test_inference_preset_is_as_skewed_as_deepseek_r1_on_32_ranks() -> None:
    """TensorRT-LLM tech_blog/blog4, table 1: mean over layers and iterations, within 7 %.

    Experts: sd 164.1 of mean 128, (max - mean) / mean 10.948; ranks: sd 491.6 of mean 1024, 1.564.
    """
    law = preset("deepseek_r1_inference")
    generators = layer_streams(6, "x", range(1500))
    p = inclusion(layers(law, 256, generators), 8)
    counts = draw(p, Batch(tokens=4096, top_k=8), generators)
    rows = counts.reshape(1500, 32, 8).sum(axis=2)
    assert float((counts.std(axis=1) / 128).mean()) == pytest.approx(164.1 / 128, rel=0.07)
    assert float((counts.max(axis=1) / 128).mean() - 1) == pytest.approx(10.948, rel=0.07)
    assert float((rows.std(axis=1) / 1024).mean()) == pytest.approx(491.6 / 1024, rel=0.07)
    assert float((rows.max(axis=1) / 1024).mean() - 1) == pytest.approx(1.564, rel=0.07)


def test_training_preset_lies_within_what_shazeer_measured() -> None:
    """Table 6, 256 experts, k = 4, losses on: CV 0.02 to 0.17, max / mean 1.07 to 1.47."""
    law = preset("training_with_balancing_loss")
    shares = 256 * layers(law, 256, layer_streams(7, "x", range(500)))
    assert 0.02 <= float(shares.std(axis=1).mean()) <= 0.17
    assert 1.07 <= float(shares.max(axis=1).mean()) <= 1.47


def test_every_preset_has_a_source_a_kind_and_a_range_and_can_be_drawn() -> None:
    for name, found in PRESETS.items():
        assert found.source
        assert found.validity
        assert found.kind in ("datasheet", "measured", "fitted", "assumed")
        assert layers(preset(name), 8, layer_streams(0, "x", [0])).shape == (1, 8)
