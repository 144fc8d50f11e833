"""Laws of expert shares: spread given in several ways, presets, and streams per layer."""

import numpy as np
import pytest

from moesim.errors import ScenarioError
from moesim.moe import load_presets
from moesim.moe.counts import Batch, draw, inclusion, layer_streams
from moesim.moe.load_laws import ShareLaw, draw_layers, of_load_law
from moesim.moe.loads import LoadLaw

_LAWS = [
    ShareLaw(law="even"),
    ShareLaw(law="uniform"),
    ShareLaw(law="dirichlet", cv=0.8),
    ShareLaw(law="dirichlet", concentration=0.6),
    ShareLaw(law="lognormal", cv=0.8),
    ShareLaw(law="lognormal", sigma=1.05),
    ShareLaw(law="zipf", exponent=0.7),
    ShareLaw(law="power_law", exponent=1.01, tokens=4096),
]


@pytest.mark.parametrize("law", _LAWS)
def test_another_layer_leaves_the_other_layers_as_they_were(law: ShareLaw) -> None:
    few = draw_layers(law, 64, layer_streams(5, "shares", [3, 4, 9]))
    many = draw_layers(law, 64, layer_streams(5, "shares", [3, 4, 7, 9, 11]))
    assert (few == many[[0, 1, 3]]).all()
    assert few.sum(axis=1) == pytest.approx(np.ones(3))
    batch = Batch(tokens=500, top_k=6, phi=1.7)
    p_few, p_many = inclusion(few, 6), inclusion(many, 6)
    counts_few = draw(p_few, batch, layer_streams(5, "counts", [3, 4, 9]))
    counts_many = draw(p_many, batch, layer_streams(5, "counts", [3, 4, 7, 9, 11]))
    assert (counts_few == counts_many[[0, 1, 3]]).all()


@pytest.mark.parametrize("law", [law for law in _LAWS if law.law != "even"])
def test_labels_of_experts_do_not_matter(law: ShareLaw) -> None:
    """Imbalance of 8 ranks with labels as drawn and permuted: same mean within 4 sigma."""
    generators = layer_streams(1, "shares", range(600))
    shares = draw_layers(law, 32, generators)
    order = np.random.default_rng(0).permutation(32)
    found = []
    for labels in (np.arange(32), order):
        counts = draw(inclusion(shares[:, labels], 4), Batch(tokens=256, top_k=4), generators)
        rows = counts.reshape(600, 8, 4).sum(axis=2)
        found.append(rows.max(axis=1) / rows.mean(axis=1))
    error = (found[0].var() / 600 + found[1].var() / 600) ** 0.5
    assert abs(float(found[0].mean() - found[1].mean())) < 4 * error


def test_each_layer_may_have_a_spread_of_its_own() -> None:
    """Lognormal sigma 0 is even; ln(E s) has the sd sigma but for the common norm."""
    sigmas = (0.0, 0.5, 1.0)
    shares = draw_layers(
        ShareLaw(law="lognormal", sigma=sigmas), 20_000, layer_streams(2, "x", range(3))
    )
    assert np.log(shares).std(axis=1) == pytest.approx(np.array(sigmas), rel=0.02, abs=1e-9)


def test_cv_sigma_and_concentration_say_the_same() -> None:
    """sigma^2 = ln(1 + cv^2); cv^2 = (E - 1) / (E a + 1), here cv = 1: a = (63 - 1) / 64."""
    streams = [layer_streams(3, "x", [0]) for _ in range(4)]
    one = draw_layers(ShareLaw(law="lognormal", cv=1.0), 64, streams[0])
    other = draw_layers(ShareLaw(law="lognormal", sigma=np.log(2) ** 0.5), 64, streams[1])
    assert one == pytest.approx(other)
    one = draw_layers(ShareLaw(law="dirichlet", cv=1.0), 64, streams[2])
    other = draw_layers(ShareLaw(law="dirichlet", concentration=62 / 64), 64, streams[3])
    assert one == pytest.approx(other, rel=1e-6)


def test_zipf_shares_are_powers_of_ranks_dealt_out_at_random() -> None:
    shares = draw_layers(ShareLaw(law="zipf", exponent=1.0), 4, layer_streams(1, "x", range(300)))
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
    law = ShareLaw(law="power_law", exponent=exponent, tokens=4096)
    shares = 256 * draw_layers(law, 256, layer_streams(4, "x", range(1500)))
    assert float(shares.std(axis=1).mean()) == pytest.approx(cv, rel=0.04)
    assert float(shares.max(axis=1).mean()) == pytest.approx(fullest, rel=0.04)


def test_inference_preset_is_as_skewed_as_deepseek_r1_on_32_ranks() -> None:
    """TensorRT-LLM tech_blog/blog4, table 1: mean over layers and iterations, within 7 %.

    Experts: sd 164.1 of mean 128, (max - mean) / mean 10.948; ranks: sd 491.6 of mean 1024, 1.564.
    """
    law = load_presets.PRESETS["inference"].law
    generators = layer_streams(6, "x", range(1500))
    p = inclusion(draw_layers(law, 256, generators), 8)
    counts = draw(p, Batch(tokens=4096, top_k=8), generators)
    rows = counts.reshape(1500, 32, 8).sum(axis=2)
    assert float((counts.std(axis=1) / 128).mean()) == pytest.approx(164.1 / 128, rel=0.07)
    assert float((counts.max(axis=1) / 128).mean() - 1) == pytest.approx(10.948, rel=0.07)
    assert float((rows.std(axis=1) / 1024).mean()) == pytest.approx(491.6 / 1024, rel=0.07)
    assert float((rows.max(axis=1) / 1024).mean() - 1) == pytest.approx(1.564, rel=0.07)


def test_training_preset_lies_within_what_shazeer_measured() -> None:
    """Table 6, 256 experts, k = 4, losses on: CV 0.02 to 0.17, max / mean 1.07 to 1.47."""
    law = load_presets.PRESETS["training_with_balancing_loss"].law
    shares = 256 * draw_layers(law, 256, layer_streams(7, "x", range(500)))
    assert 0.02 <= float(shares.std(axis=1).mean()) <= 0.17
    assert 1.07 <= float(shares.max(axis=1).mean()) <= 1.47


def test_every_preset_has_a_source_a_kind_and_a_range_and_can_be_drawn() -> None:
    for preset in load_presets.PRESETS.values():
        assert preset.source
        assert preset.validity
        assert preset.kind in ("datasheet", "measured", "fitted", "assumed")
        assert draw_layers(preset.law, 8, layer_streams(0, "x", [0])).shape == (1, 8)


def test_laws_given_by_cv_alone_are_taken_over() -> None:
    assert of_load_law(LoadLaw(law="lognormal", cv=0.5)) == ShareLaw(law="lognormal", cv=0.5)
    assert of_load_law(LoadLaw(law="even")) == ShareLaw(law="even")


@pytest.mark.parametrize(
    ("law", "says"),
    [
        (ShareLaw(law="lognorm", cv=1.0), "Did you mean 'lognormal'"),
        (ShareLaw(law="lognormal"), "needs one of cv or sigma"),
        (ShareLaw(law="lognormal", cv=1.0, sigma=1.0), "needs one of cv or sigma"),
        (ShareLaw(law="lognormal", concentration=1.0), "takes cv or sigma"),
        (ShareLaw(law="even", cv=1.0), "takes no spread"),
        (ShareLaw(law="dirichlet", cv=(0.1, 0.2)), "2 figures for 3 layers"),
        (ShareLaw(law="dirichlet", cv=-0.1), "at least 0"),
        (ShareLaw(law="dirichlet", cv=float("nan")), "finite"),
        (ShareLaw(law="dirichlet", concentration=0.0), "above 0"),
        (ShareLaw(law="power_law", exponent=1.01), "needs the tokens"),
    ],
)
def test_a_spread_that_does_not_suit_the_law_is_said(law: ShareLaw, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        draw_layers(law, 8, layer_streams(0, "x", range(3)))
