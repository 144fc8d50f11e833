"""moesim: what a Mixture-of-Experts model will do on a cluster.

>>> import moesim
>>> result = moesim.run(moesim.load_scenario("mixtral-8x7b-64xh100"))
>>> result.summary()["model"]["metrics"]["step_s"]  # doctest: +SKIP

load_scenario   a scenario from a file or a shipped name
load_model      an architecture by name, from a config.json or from moesim's own YAML
run             simulate a scenario
bounds          least step time and peak memory of many layouts (LayoutChoice): Bounds
Result          what came of it: summary, tables, data frames, figures, files
load_serving    a serving scenario, from a file or a shipped name
serve           simulate a serving scenario: ServingResult, with the same as Result
errors          MoesimError and its children, see moesim.errors
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moesim.version import __version__

if TYPE_CHECKING:
    from moesim.errors import (
        CalibrationError,
        ModelError,
        MoesimError,
        ProfileError,
        ScenarioError,
        SimulationError,
    )
    from moesim.model.named import load_model
    from moesim.spec.load import load_scenario, load_serving
    from moesim.study.bounds import Bounds, LayoutChoice, bounds
    from moesim.study.result import Result
    from moesim.study.run import run
    from moesim.study.serving.result import ServingResult
    from moesim.study.serving.run import serve

_HOMES = {
    "Bounds": "moesim.study.bounds",
    "CalibrationError": "moesim.errors",
    "LayoutChoice": "moesim.study.bounds",
    "ModelError": "moesim.errors",
    "MoesimError": "moesim.errors",
    "ProfileError": "moesim.errors",
    "Result": "moesim.study.result",
    "ScenarioError": "moesim.errors",
    "ServingResult": "moesim.study.serving.result",
    "SimulationError": "moesim.errors",
    "bounds": "moesim.study.bounds",
    "load_model": "moesim.model.named",
    "load_scenario": "moesim.spec.load",
    "load_serving": "moesim.spec.load",
    "run": "moesim.study.run",
    "serve": "moesim.study.serving.run",
}

__all__ = [
    "Bounds",
    "CalibrationError",
    "LayoutChoice",
    "ModelError",
    "MoesimError",
    "ProfileError",
    "Result",
    "ScenarioError",
    "ServingResult",
    "SimulationError",
    "__version__",
    "bounds",
    "load_model",
    "load_scenario",
    "load_serving",
    "run",
    "serve",
]


def __getattr__(name: str) -> Any:
    # each name is imported when it is first used, so that `moesim --help` stays quick
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'moesim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
