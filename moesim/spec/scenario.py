"""The scenario: one question to moesim, whole."""

from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from moesim.errors import Problem, ScenarioError
from moesim.spec.base import Listed, Spec, or_one
from moesim.spec.baseline import ComparedSpec, as_list
from moesim.spec.campaign import CampaignSpec
from moesim.spec.parallel import ParallelSpec
from moesim.spec.quantities import UsdPerDeviceHour
from moesim.spec.routing import RoutingSpec
from moesim.spec.shipped import names_file
from moesim.spec.training import TrainingSpec
from moesim.spec.yaml_text import Document


class SlowDevices(Spec):
    """Devices that run slower than the others all the time, such as throttled ones."""

    devices: Annotated[int, Field(ge=1, le=10_000_000)]
    """How many; which ones is drawn by the seed."""
    speed: Annotated[float, Field(gt=0, lt=1)]
    """Their speed as a share of the others', such as 0.8."""


class ClusterChoice(Spec):
    """The machines, by the name of their profile, and how many devices of them."""

    profile: str
    """A shipped cluster profile such as dgx-h100, or the path of a YAML file."""
    devices: Annotated[int, Field(ge=1, le=10_000_000)]
    """Devices used by the run."""
    devices_per_domain: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Devices used of each scale-up domain, such as 64 of the 72 of a rack, so that groups of ranks
    do not lie across two; left out, all."""
    price: UsdPerDeviceHour | None = None
    """What a device costs per hour; left out, the profile's price holds, where it has one."""
    oversubscription: Annotated[float, Field(ge=1, le=1000)] | None = None
    """Bandwidth below over bandwidth above the leaf switches; left out, the profile's."""
    speed_spread: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of the logarithm of the devices' speeds, drawn by the seed; 0: all alike.
    Everybody waits for the slowest device of each pipeline stage."""
    slow: SlowDevices | None = None
    """Devices that are slower than the others throughout."""

    slice: (
        Annotated[Listed[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=6)]
        | None
    ) = None
    """Shape of each slice of a torus, such as [4, 4, 8]; ranks run along the last axis first. Left
    out: the most cubic shape of the devices, one whose axes all close into rings if there is."""

    @model_validator(mode="after")
    def _check(self) -> "ClusterChoice":
        if self.slow is not None and self.slow.devices > self.devices:
            raise ValueError(f"slow.devices {self.slow.devices} are more than {self.devices}")
        return self


class BaselineSpec(ComparedSpec):
    """The model that runs on the same devices, to compare with: mostly a dense one."""

    parallel: ParallelSpec | None = None
    """Its layout; left out, the fastest one that fits among the usual ones is taken."""


Baselines = Annotated[
    tuple[BaselineSpec, ...],
    Field(max_length=8, json_schema_extra=or_one),
    BeforeValidator(as_list),
]


class Scenario(Spec):
    """What to simulate."""

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
    software: str = "megatron"
    """The software profile: a shipped name or the path of a YAML file."""
    parallel: ParallelSpec = ParallelSpec()
    """How the model is cut over the devices."""
    training: TrainingSpec
    """What is trained."""
    routing: RoutingSpec = RoutingSpec()
    """How tokens find their experts."""
    campaign: CampaignSpec | None = None
    """Training on all of `training.tokens`, with failures, checkpoints and restarts; left out, days
    and cost are those of a run that nothing interrupts."""
    baseline: Baselines = ()
    """The model to compare with, or a list of them."""

    _document: Document = PrivateAttr(default_factory=lambda: Document({}))
    _folder: Path = PrivateAttr(default_factory=Path)

    def origin(self, document: Document, folder: Path) -> "Scenario":
        """Remember where the scenario was read, for messages and relative paths."""
        self._document = document
        self._folder = folder
        return self

    def written(self) -> dict[str, Any]:
        """Return a copy of what the user wrote, what it extends and --set included."""
        return deepcopy(self._document.data) if isinstance(self._document.data, dict) else {}

    def path_of(self, name: str) -> str:
        """Return `name` as a path relative to the scenario's folder, if it names a file there."""
        return str(self._folder / name) if names_file(name) else name

    def error(self, key: str, message: str) -> ScenarioError:
        """Return the error that `key` (dotted) of this scenario is wrong, where it stands."""
        path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        return ScenarioError([Problem(key, message, *self._document.at(path))])
