"""A serving scenario: one question about inference, whole."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr

from moesim.errors import Problem, ScenarioError
from moesim.spec.base import Spec
from moesim.spec.scenario import ClusterChoice
from moesim.spec.serving.baseline import ServingBaselines
from moesim.spec.serving.cluster import ServingClusterSpec
from moesim.spec.serving.engine import EngineSpec, FormatsSpec
from moesim.spec.serving.parallel import ServingParallelSpec
from moesim.spec.serving.slo import SloSpec
from moesim.spec.serving.workload import WorkloadSpec
from moesim.spec.shipped import names_file
from moesim.spec.yaml_text import Document


class ServingSpec(Spec):
    """What is served, by what, to whom."""

    engine: EngineSpec = EngineSpec()
    """The inference engine."""
    parallel: ServingParallelSpec = ServingParallelSpec()
    """How a replica is cut over devices; what devices are left become more replicas."""
    formats: FormatsSpec = FormatsSpec()
    """Number formats of weights and cache."""
    workload: WorkloadSpec
    """Which requests come when."""
    slo: SloSpec | None = None
    """What users are promised; with it the report counts goodput and says whether it is met."""
    cluster: ServingClusterSpec = ServingClusterSpec()
    """Replicas, their router, and what comes and goes."""


class ServingScenario(Spec):
    """What to simulate of inference."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "scenario"
    """Short name for files and titles; left out, the name of the file."""
    description: str = ""
    """What the scenario is for, in the report's head."""
    seed: Annotated[int, Field(ge=0, le=2**63)] = 0
    """Seed of every random draw."""
    model: str
    """A named model, the path of a config.json, or the path of a model in moesim's own YAML."""
    cluster: ClusterChoice
    """The machines."""
    software: str | None = None
    """The software profile; left out, that of the engine."""
    serving: ServingSpec
    """What is served."""
    baseline: ServingBaselines = ()
    """The model to compare with, or a list of them."""

    _document: Document = PrivateAttr(default_factory=lambda: Document({}))
    _folder: Path = PrivateAttr(default_factory=Path)

    def origin(self, document: Document, folder: Path) -> "ServingScenario":
        """Remember where the scenario was read, for messages and relative paths."""
        self._document = document
        self._folder = folder
        return self

    def path_of(self, name: str) -> str:
        """Return `name` as a path relative to the scenario's folder, if it names a file there."""
        return str(self._folder / name) if names_file(name) else name

    def file_of(self, name: str) -> Path:
        """Return the path of the file `name`, from the scenario's folder on."""
        return self._folder / name

    def error(self, key: str, message: str) -> ScenarioError:
        """Return the error that `key` (dotted) of this scenario is wrong, where it stands."""
        path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        return ScenarioError([Problem(key, message, *self._document.at(path))])
