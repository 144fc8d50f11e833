"""Thousands of broken and wild scenarios: no exception but moesim's own, all problems placed.

Some are built from the schema (keys dropped, wrong types, wild values), some are valid but extreme
(any model on any cluster, largest and smallest values), some rest on profiles and models with
extreme figures, and some are shipped files with bytes changed. What is accepted is resolved, and
simulated where that is small; no result may hold NaN or infinity.
"""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from moesim.errors import MoesimError, ScenarioError
from moesim.hardware.profiles import cluster_names
from moesim.model.named import load_named, named_models
from moesim.spec.explain import Key, tree
from moesim.spec.load import load_scenario
from moesim.spec.shipped import shipped, shipped_names
from moesim.study.report.files import to_json
from moesim.study.resolve import Training, resolve
from moesim.study.run import run

BUILT, EXTREME, FIGURES, SIZES, MUTATED = 500, 120, 120, 120, 800
SMALL_PASSES = 100

BASES: tuple[dict[str, Any], ...] = (
    {
        "model": "olmoe-1b-7b",
        "cluster": {"profile": "dgx-h100", "devices": 16},
        "parallel": {"tp": 2, "pp": 2, "ep": 4, "etp": 1},
        "training": {"sequence_length": 512, "global_batch": 16},
        "routing": {"load": {"law": "dirichlet", "cv": 0.3}, "capacity": {"factor": 1.25}},
    },
    {
        "model": "switch-base-8",
        "cluster": {"profile": "tpu-v3-pod", "devices": 8},
        "parallel": {"ep": 8},
        "training": {"sequence_length": 64, "target_length": 32, "global_batch": 8},
        "routing": {"capacity": {"factor": 1.0, "formula": "switch", "pad": True}},
    },
    {
        "model": "deepseek-v2-lite",
        "cluster": {"profile": "h800-cluster", "devices": 16, "price": "2 USD/h"},
        "parallel": {"pp": 3, "vpp": 1, "ep": 1},
        "training": {"sequence_length": 64, "global_batch": 8, "recompute": ["mlp"]},
        "baseline": [{"equal": "flop", "parallel": {"tp": 1}}],
    },
    {
        "model": "llama-2-7b",
        "cluster": {"profile": "dgx-a100", "devices": 8},
        "parallel": {"tp": 2, "cp": 2, "pp": 2, "vpp": 2},
        "training": {"sequence_length": 256, "global_batch": 8, "tokens": "1 Ttokens"},
    },
)

WILD: st.SearchStrategy[Any] = st.sampled_from(
    [
        0, -1, 1, 2, 3, 4, 7, 8, 16, 64, 4096, 10**5, 10**6, 10**7, 10**9, 2**63, 10**25,
        0.0, -0.0, 5e-324, 1e-9, 0.5, 1.0, 1.5, 1e308, -1e308,
        "", " ", "x", "x" * 10_000, "12:30", "nan", "inf", "1e9", "~", "\0", "\u2028", "ü", "../x",
        "1 GB", "1 Gb/s", "0 s", "1e308 USD/h", "1e50 tokens", "-1 tokens", "1e-300 USD/h", "3 h",
        "none", "full", "flop", "a.yaml", "/dev/null", "/", ".", "x" * 5000 + ".yaml",
        True, False, None, [], [1], [[]], ["moe"], ["mlp", "mlp"], {}, {"a": 1}, {"tp": 2},
    ]
)  # fmt: skip


def leaves(keys: tuple[Key, ...]) -> Iterator[Key]:
    for key in keys:
        if key.keys:
            yield from leaves(key.keys)
        else:
            yield key


KEYS = tuple(tree())[: [key.path for key in tree()].index("baseline") + 1]
LEAVES = tuple(leaves(KEYS))
PATHS = tuple(key.path for key in LEAVES)


def words_of(key: Key) -> st.SearchStrategy[Any]:
    """Values that are nearly right for a key, or wild."""
    near: list[st.SearchStrategy[Any]] = [WILD]
    if key.allowed:
        near.append(st.sampled_from(key.allowed))
    if key.kind.startswith("whole number"):
        near += [st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(-(2**70), 2**70)]
    if key.kind.startswith("number"):
        near += [st.floats(0, 4), st.floats(allow_nan=False, allow_infinity=False)]
    if key.kind.startswith("quantity"):
        near.append(st.sampled_from([key.example, key.example.replace(" ", "e3 ")]))
    if key.path in ("model", "baseline.model"):
        near.append(st.sampled_from(["mixtral-8x7b", "qwen3-next-80b-a3b", "t5-base", "mpt-7b"]))
    if key.path == "cluster.profile":
        near.append(st.sampled_from(["gb200-nvl72", "tpu-v5e-pod", "mi300x-8", "v100-dgx1"]))
    return st.one_of(near)


CHANGES = st.sampled_from(LEAVES).flatmap(lambda key: st.tuples(st.just(key.path), words_of(key)))
PARTS = st.sampled_from(["cluster", "parallel", "training", "routing", "routing.load", "baseline"])


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """A base with some keys changed, some dropped, some invented."""
    data: dict[str, Any] = deepcopy(draw(st.sampled_from(BASES)))
    for path, value in draw(st.lists(CHANGES, max_size=3)):
        put(data, path.split("."), value)
    for path in draw(st.lists(st.one_of(st.sampled_from(PATHS), PARTS), max_size=1)):
        drop(data, path.split("."))
    if draw(st.integers(0, 9)) == 0:
        put(data, draw(PARTS).split("."), draw(WILD))
    if draw(st.integers(0, 9)) == 0:
        put(data, [*draw(PARTS).split("."), draw(st.text(max_size=5))], draw(WILD))
    return data


def put(data: Any, path: list[str], value: Any) -> None:
    *outer, last = path
    for part in outer:
        data = data[0] if isinstance(data, list) and data else data
        if not isinstance(data, dict):
            return
        data = data.setdefault(part, {})
    if isinstance(data, dict):
        data[last] = deepcopy(value)


def drop(data: Any, path: list[str]) -> None:
    *outer, last = path
    for part in outer:
        data = data.get(part) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(last, None)


def check(file: Path) -> None:
    """Load, resolve and perhaps simulate `file`; anything but a MoesimError fails the test."""
    try:
        scenario = load_scenario(file)
        training = resolve(scenario)
        if is_small(training):
            to_json(run(scenario).summary())  # refuses NaN and infinity
    except ScenarioError as error:
        assert error.exit_code == 2
        assert error.problems
        for problem in error.problems:
            assert problem.file, problem
            assert problem.line >= 1, problem
            assert problem.column >= 1, problem
            assert len(str(problem)) < 20_000, str(problem)[:500]
    except MoesimError as error:
        assert str(error)


def checked(file: Path, number: int) -> None:
    try:
        check(file)
    except BaseException as error:
        error.add_note(f"number {number}: {file.read_bytes()!r}")
        raise


def is_small(training: Training) -> bool:
    layout, scenario = training.layout, training.scenario
    passes = training.micro_batches * layout.pp * layout.vpp
    searches = any(one.parallel is None for one in scenario.baseline)
    return passes <= SMALL_PASSES and scenario.training.steps <= 2 and not searches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(
    max_examples=BUILT, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=scenarios())
def test_scenarios_built_from_the_schema(folder: Path, data: dict[str, Any]) -> None:
    file = folder / "built.yaml"
    file.write_text(json.dumps(data), encoding="utf-8")
    check(file)


CATALOGUE = Path(__file__).resolve().parents[2] / "moesim" / "model" / "catalogue"
MODELS = named_models()
CLUSTERS = cluster_names()
EXTREMES: dict[str, tuple[Any, ...]] = {
    "cluster.price": ("0 USD/h", "1e50 USD/h", "1e-50 USD/h", "3 USD/h"),
    "cluster.oversubscription": (1, 1.5, 1000),
    "cluster.devices_per_domain": (1, 8, 64, 10**7),
    "parallel.sequence_parallel": (True, False),
    "parallel.schedule": ("1f1b", "gpipe"),
    "parallel.dispatcher": ("alltoall", "allgather", "deepep", "hybridep"),
    "training.precision": ("bf16", "fp16", "fp8", "fp32"),
    "training.recompute": ("none", "full", ["mlp"], ["moe"], ["moe_act"], ["core_attn"],
                           ["layernorm"], ["mla_up_proj"]),
    "training.optimizer.kind": ("adam", "adafactor", "sgd"),
    "training.optimizer.distributed": (True, False),
    "training.optimizer.gradient_dtype": ("fp32", "bf16"),
    "training.optimizer.moment_dtype": ("fp32", "bf16", "fp8", "int8"),
    "training.optimizer.offload": (True, False, 0.5),
    "training.overlap.grad_reduce": (True, False),
    "training.overlap.param_gather": (True, False),
    "training.tokens": ("0 tokens", "1 tokens", "1e50 tokens", "1e-50 tokens"),
    "training.steps": (1, 2),
    "seed": (0, 1, 2**63),
    "routing.load": ({"law": "uniform"}, {"law": "dirichlet", "cv": 0}, {"law": "even"},
                     {"law": "dirichlet", "cv": 20}, {"law": "dirichlet", "cv": 1e-300},
                     {"law": "lognormal", "cv": 0}, {"law": "lognormal", "cv": 20}),
    "routing.capacity": ({"factor": 1e-300}, {"factor": 1e6}, {"factor": 1.25, "pad": True},
                         {"factor": 1e-300, "min_slots": 0}, {"factor": 1, "min_slots": 10**9},
                         {"factor": 1, "min_slots": 10**9, "pad": True},
                         {"factor": 1, "group_tokens": 1}, {"factor": 1, "group_tokens": 10**9},
                         {"factor": 1, "group_tokens": 7, "pad": True},
                         {"factor": 1e-300, "min_slots": 0, "pad": True}),
    "routing.capacity.formula": ("megatron", "deepspeed", "tutel", "megablocks", "switch",
                                 "flaxformer"),
    "baseline": ({"equal": "active_params", "parallel": {}}, {"equal": "flop", "parallel": {}},
                 {"equal": "total_params", "parallel": {}}, {"model": "t5-base", "parallel": {}}),
}  # fmt: skip
"""Values at the ends of what the schema allows."""


def extreme(chance: random.Random) -> dict[str, Any]:
    """Return a scenario whose numbers agree with each other, with extreme values."""
    tp, cp, pp = (chance.choice([1, 1, 1, 2, 4, 8]) for _ in range(3))
    dp = chance.choice([1, 2, 4, 8, 64, 1024])
    micro = chance.choice([1, 1, 1, 1, 2, 2, 64, 10**5])
    model = chance.choice(MODELS)
    architecture = load_named(model)
    if architecture.encoder:
        cp = pp = 1
    parallel = {"tp": tp, "cp": cp, "pp": pp}
    if architecture.is_moe:
        parallel["ep"] = chance.choice([1, 1, 2, 4, 8, 64])
    if chance.random() < 0.5:
        parallel["etp"] = 1
    if pp > 1 and chance.random() < 0.3:
        parallel["vpp"] = 2
    data: dict[str, Any] = {
        "model": model,
        "cluster": {"profile": chance.choice(CLUSTERS), "devices": tp * cp * pp * dp},
        "parallel": parallel,
        "training": {
            "sequence_length": chance.choice([1, 8, 512, 4096, 10**6]),
            "global_batch": micro * dp * chance.choice([1, 2, pp, 2 * pp]),
            "micro_batch": micro,
        },
    }
    if architecture.encoder:
        data["training"]["target_length"] = chance.choice([1, 64, 10**4])
    for path in chance.sample(sorted(EXTREMES), chance.randint(0, 6)):
        put(data, path.split("."), chance.choice(EXTREMES[path]))
    if data["cluster"]["profile"] not in ("dgx-h100", "dgx-a100"):  # others know no leaves
        data["cluster"].pop("oversubscription", None)
    if "formula" in data.get("routing", {}).get("capacity", {}):
        data["routing"]["capacity"].setdefault("factor", 1)
    return data


def test_valid_scenarios_with_extreme_values(folder: Path) -> None:
    chance = random.Random("extreme")
    file = folder / "extreme.yaml"
    for number in range(EXTREME):
        file.write_text(json.dumps(extreme(chance)), encoding="utf-8")
        checked(file, number)


FIGURE_VALUES: dict[type, tuple[Any, ...]] = {
    str: ("0", "1", "1e12", "1e50", "1e-50", "1e51"),
    int: (0, 1, 2, 3, 16, 4096, 10**12, 10**25),
    float: (0, 0.0, 1e-300, 1e-6, 0.5, 1, 1000, 1e308),
}
"""Extreme values for a figure by the type of the one it replaces; texts get its unit."""

PROFILES = (
    ("software", shipped("hwprofiles") / "software" / "megatron.yaml"),
    ("cluster", shipped("hwprofiles") / "clusters" / "dgx-h100.yaml"),
    ("accelerator", shipped("hwprofiles") / "accelerators" / "h100-sxm.yaml"),
)


def with_figures(folder: Path, chance: random.Random) -> dict[str, Any]:
    """Return the first base on copies of its profiles in which one to three figures are extreme."""
    data = deepcopy(BASES[0])
    for kind, path in PROFILES:
        profile = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        figures = list(figures_in(profile))
        for figure in chance.sample(figures, chance.choice([0, 0, 1, 2])):
            old = figure["value"]
            new = chance.choice(FIGURE_VALUES[type(old)])
            figure["value"] = f"{new} {old.split()[-1]}" if isinstance(old, str) else new
        profile["name"] = kind
        if kind == "cluster":
            profile["accelerator"] = "accelerator.yaml"
        (folder / f"{kind}.yaml").write_text(json.dumps(profile), encoding="utf-8")
    data["software"], data["cluster"]["profile"] = "software.yaml", "cluster.yaml"
    data["cluster"]["devices"] = 16
    return data


def figures_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "value" in node:
            yield node
        for inner in node.values():
            yield from figures_in(inner)


def test_profiles_with_extreme_figures(folder: Path) -> None:
    chance = random.Random("figures")
    file = folder / "figures.yaml"
    for number in range(FIGURES):
        file.write_text(json.dumps(with_figures(folder, chance)), encoding="utf-8")
        checked(file, number)


NETWORKS = (
    "mixtral-8x7b",
    "deepseek-v3.2",
    "qwen3-next-80b-a3b",
    "nllb-moe-54b",
    "gpt-oss-20b",
    "arctic",
)


def with_model(folder: Path, chance: random.Random) -> dict[str, Any]:
    """Return a scenario of a model in which one to three sizes are extreme."""
    path = CATALOGUE / f"{chance.choice(NETWORKS)}.yaml"
    model = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    for _ in range(chance.choice([1, 1, 2, 3])):
        part = chance.choice(
            [model, *(inner for inner in model.values() if isinstance(inner, dict))]
        )
        sizes = [key for key, value in part.items() if isinstance(value, int)]
        if sizes:
            part[chance.choice(sizes)] = chance.choice(
                [0, 1, 2, 3, 8, 16, 64, 1024, 10**4, 10**6, 10**9, 10**10, True]
            )
    (folder / "model.yaml").write_text(json.dumps(model), encoding="utf-8")
    training = {"sequence_length": 64, "global_batch": 8}
    if model.get("encoder_layers"):
        training["target_length"] = 32
    return {
        "model": "model.yaml",
        "cluster": {"profile": "dgx-h100", "devices": 8},
        "parallel": {"ep": chance.choice([1, 2, 8]), "pp": chance.choice([1, 1, 2])},
        "training": training,
    }


def test_models_with_extreme_sizes(folder: Path) -> None:
    chance = random.Random("models")
    file = folder / "sizes.yaml"
    for number in range(SIZES):
        file.write_text(json.dumps(with_model(folder, chance)), encoding="utf-8")
        checked(file, number)


TOKENS = (
    b"{", b"}", b"[", b"]", b": ", b"- ", b"&a ", b"*a", b"!!int ", b"\t", b"\n", b"#", b"'", b'"',
    b".nan", b".inf", b"1e999", b"-1", b"0", b"9" * 40, b"12:30", b"<<: *a\n", b"---\n", b"? ",
    b"\x00", b"\xff", b"\xe2\x80\xa8", b"| ", b"> ", b"%YAML 1.1\n", b"extends: x\n", b"null",
)  # fmt: skip


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """Return `raw` with one to four places changed."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(raw) + 1)
        end = min(len(raw), start + chance.choice([0, 1, 1, 2, 8, 40]))
        piece = raw[start:end]
        new = chance.choice(
            [
                b"",
                chance.choice(TOKENS),
                bytes([chance.randrange(256)]),
                piece * 2,
                piece[::-1],
                str(chance.choice([0, 1, 2, 3, 5, 64, 10**6, -4])).encode(),
                raw[chance.randrange(len(raw) + 1) :][:20],
            ]
        )
        raw = raw[:start] + new + raw[end:]
    return raw


SLOW = ("routing-switch-capacity", "routing-gshard-top2", "routing-deepseek-v3-nodes")
"""They draw so many experts that hundreds of runs of each would take minutes."""
NAMES = [name for name in shipped_names(shipped("scenarios")) if name not in SLOW
         and not name.startswith("serving-")]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_shipped_scenarios_with_bytes_changed(folder: Path, name: str) -> None:
    raw = (shipped("scenarios") / f"{name}.yaml").read_bytes()
    chance = random.Random(name)
    file = folder / f"{name}.yaml"
    for number in range(MUTATED // len(NAMES) + 1):
        file.write_bytes(mutated(raw, chance))
        checked(file, number)
