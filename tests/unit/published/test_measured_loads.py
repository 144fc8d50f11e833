"""Statistics of published loads of three open models, domain by domain, and laws fitted to them.

The loads are allenai/OLMoE @357454f4 and deepseek-ai/ESFT @579a7511; the figures below were
computed from them elsewhere. Band: half of the last digit printed, where nothing else is said.
"""

import csv
from functools import cache

import numpy as np
import pytest

from moesim.moe import trace_statistics as statistics
from moesim.moe.counts import layer_streams
from moesim.moe.loads import Counts, LoadLaw, draw_shares
from moesim.moe.traces import CountTable, read_counts
from tests.shared_files import shared

MIXTRAL, OLMOE, DEEPSEEK = "mixtral-8x7b-v0.1", "olmoe-1b-7b-0924", "deepseek-v2-lite"
OF_ALL = {MIXTRAL: "top2", OLMOE: "top8", DEEPSEEK: "top6"}
PRETRAINED = ("base", "esft-vanilla-lite")
DIGIT = 5.1e-4


@cache
def _tables() -> list[CountTable]:
    names = ("deepseek_v2_lite_expert_counts", "olmoe_mixtral_expert_counts")
    return [t for name in names for t in read_counts(shared(f"expert-loads/{name}.csv"))]


def _by_domain(model: str, selection: str = "") -> dict[str, Counts]:
    wanted = (model, selection or OF_ALL[model])
    return {
        t.domain: t.counts
        for t in _tables()
        if (t.model, t.selection) == wanted and t.checkpoint in PRETRAINED
    }


def _mix(model: str) -> Counts:
    """Return an equal mix of the domains; tulu, for one model only, is left out."""
    domains = [counts for name, counts in _by_domain(model).items() if name != "tulu"]
    shares = [counts / counts.sum(axis=1, keepdims=True) for counts in domains]
    return np.asarray(np.rint(1e9 * np.mean(shares, axis=0)), dtype=np.int64)


@pytest.mark.parametrize(
    ("model", "cv", "fullest"),
    [  # 5 %, 50 % and 95 % of layers and domains; fullest over mean of DeepSeek to two decimals
        (MIXTRAL, [0.059, 0.123, 0.237], [1.09, 1.17, 1.31]),
        (OLMOE, [0.39, 0.84, 1.31], [2.63, 4.48, 7.54]),
        (DEEPSEEK, [0.44, 0.80, 1.31], [2.10, 4.07, 6.51]),
    ],
)
def test_quantiles_of_layers_and_domains(model: str, cv: list[float], fullest: list[float]) -> None:
    found = [statistics.load_statistics(counts) for counts in _by_domain(model).values()]
    for values, printed in (
        ([f.cv for f in found], cv), ([f.max_over_mean for f in found], fullest),
    ):  # fmt: skip
        quantiles = np.quantile(np.concatenate(values), [0.05, 0.5, 0.95])
        assert quantiles == pytest.approx(np.array(printed), abs=5.1e-3)


MEANS = {  # model, domain: fullest over mean and CV, means over layers
    (MIXTRAL, "arxiv"): (1.191, 0.146),
    (MIXTRAL, "book"): (1.190, 0.152),
    (MIXTRAL, "c4"): (1.107, 0.098),
    (MIXTRAL, "github"): (1.290, 0.142),
    (MIXTRAL, "wikipedia"): (1.142, 0.105),
    (MIXTRAL, ""): (1.134, 0.100),
    (OLMOE, "arxiv"): (7.197, 1.159),
    (OLMOE, "book"): (3.539, 0.726),
    (OLMOE, "c4"): (2.725, 0.413),
    (OLMOE, "github"): (5.224, 1.067),
    (OLMOE, "tulu"): (3.941, 0.685),
    (OLMOE, "wikipedia"): (5.870, 1.074),
    (OLMOE, ""): (2.526, 0.452),
    (DEEPSEEK, "intent"): (3.814, 0.792),
    (DEEPSEEK, "law"): (3.521, 0.606),
    (DEEPSEEK, "summary"): (4.280, 0.737),
    (DEEPSEEK, "translation"): (5.624, 1.170),
    (DEEPSEEK, ""): (2.735, 0.510),
}
"""No domain: the equal mix."""


@pytest.mark.parametrize("key", MEANS)
def test_means_of_domains(key: tuple[str, str]) -> None:
    model, domain = key
    found = statistics.load_statistics(_by_domain(model)[domain] if domain else _mix(model))
    fullest, cv = MEANS[key]
    assert float(found.max_over_mean.mean()) == pytest.approx(fullest, abs=DIGIT)
    assert float(found.cv.mean()) == pytest.approx(cv, abs=DIGIT)


def test_first_choices_alone_are_far_more_skewed() -> None:
    printed = {"arxiv": 27.165, "book": 5.472, "c4": 3.982, "github": 12.475, "wikipedia": 24.101}
    for domain, counts in _by_domain(OLMOE, "top1-of-8").items():
        found = float(statistics.load_statistics(counts).max_over_mean.mean())
        assert found == pytest.approx(printed.pop(domain), abs=DIGIT)
    assert not printed


def test_fine_tuning_flattens_the_load_of_olmoe() -> None:
    printed = {"base": 0.685, "sft": 0.603, "dpo": 0.599}
    tulu = {t.checkpoint: t for t in _tables() if t.domain == "tulu"}
    found = {
        name: float(statistics.load_statistics(t.counts).cv.mean()) for name, t in tulu.items()
    }
    assert found == pytest.approx(printed, abs=DIGIT)


LAW_PARAMETERS = {
    "dirichlet": ("cv", "cv"),
    "lognormal": ("cv", "cv"),
    "zipf": ("exponent", "zipf_s"),
}
"""The law's parameter, and the column that holds it."""


@cache
def _fits(model: str, law: str) -> list[tuple[str, str, float, float]]:
    """Return domain, selection, RMSE of sorted relative loads and predicted over actual fullest.

    Every row of layer and domain has the CV (Zipf: the exponent) that was fitted to it; the law's
    sorted loads are means of drawn ones.
    """
    found, draws = [], 60 if model != MIXTRAL else 600  # eight experts scatter more
    counted = {
        (t.checkpoint, t.domain, t.selection, layer): row
        for t in _tables()
        if t.model == model
        for layer, row in zip(t.layers, t.counts, strict=True)
    }
    key, column = LAW_PARAMETERS[law]
    with shared("expert-loads/load_statistics.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["model"] != model:
                continue
            layer, domain, selection = int(line["layer"]), line["domain"], line["selection"]
            row = counted.get((line["checkpoint"], domain, selection, layer))
            if row is None:  # the equal mix
                row = _mix(model)[layer - 1 if model == DEEPSEEK else (0, 7, 15).index(layer)]
            given = LoadLaw(law=law, **{key: float(line[column])})  # type: ignore[arg-type]
            streams = layer_streams(layer, domain, range(draws))
            drawn = np.stack([draw_shares(given, len(row), stream) for stream in streams])
            predicted = len(row) * np.sort(drawn, axis=1).mean(axis=0)
            relative = np.sort(row / row.mean())
            rmse = float(np.sqrt(((relative - predicted) ** 2).mean()))
            found.append((domain, selection, rmse, float(predicted[-1] / relative[-1])))
    return found


@pytest.mark.parametrize(
    ("model", "law", "printed"),
    [
        (DEEPSEEK, "dirichlet", 0.143), (DEEPSEEK, "lognormal", 0.153), (DEEPSEEK, "zipf", 0.572),
        (OLMOE, "dirichlet", 0.368), (OLMOE, "lognormal", 0.469), (OLMOE, "zipf", 1.042),
        (MIXTRAL, "dirichlet", 0.055), (MIXTRAL, "lognormal", 0.060), (MIXTRAL, "zipf", 0.085),
    ],
)  # fmt: skip
def test_how_well_laws_fit_sorted_loads(model: str, law: str, printed: float) -> None:
    """All rows of the model, equal mixes and first choices included.

    Band: 3 %; expected order statistics are means of draws here.
    """
    assert np.mean([rmse for *_, rmse, _ in _fits(model, law)]) == pytest.approx(printed, rel=0.03)


@pytest.mark.parametrize(
    ("model", "law", "printed"),
    [
        (DEEPSEEK, "dirichlet", 0.955), (DEEPSEEK, "lognormal", 1.038), (DEEPSEEK, "zipf", 2.028),
        (OLMOE, "dirichlet", 0.896), (OLMOE, "lognormal", 0.969), (OLMOE, "zipf", 1.855),
        (MIXTRAL, "dirichlet", 1.020), (MIXTRAL, "lognormal", 1.011), (MIXTRAL, "zipf", 1.060),
    ],
)  # fmt: skip
def test_how_full_laws_say_the_fullest_expert_is(model: str, law: str, printed: float) -> None:
    """All choices of every domain without the mix. Band: 3 %, as the lognormal's mean scatters."""
    found = [
        ratio
        for domain, selection, _, ratio in _fits(model, law)
        if domain != "equal-mix" and selection == OF_ALL[model]
    ]
    assert float(np.mean(found)) == pytest.approx(printed, rel=0.03)
