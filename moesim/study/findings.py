"""What a scenario came to, as one record that every report is made from."""

from dataclasses import dataclass

from moesim.spec.scenario import Scenario
from moesim.study.advice import Change
from moesim.study.campaign import Campaign
from moesim.study.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Baseline:
    """The run of a dense model, and what it has in common with the model it stands beside."""

    outcome: Outcome
    relation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A model's run, and the runs of the dense models beside it."""

    scenario: Scenario
    outcome: Outcome
    baselines: tuple[Baseline, ...]
    changes: tuple[Change, ...]
    """What would make the model fit, where it does not."""
    campaign: Campaign | None = None
    """The whole training run of the model, where the scenario asks for it."""

    @property
    def fits(self) -> bool:
        """Whether the model fits into the memory of its devices."""
        return self.outcome.fits

    @property
    def runs(self) -> tuple[tuple[str, Outcome], ...]:
        """The runs by role: model, baseline, and "baseline 2" and so on where there are more."""
        roles = ["baseline", *(f"baseline {n}" for n in range(2, len(self.baselines) + 1))]
        dense = zip(roles, (one.outcome for one in self.baselines), strict=False)
        return (("model", self.outcome), *dense)
