"""Runs a serving scenario."""

from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.refused import refuse
from moesim.study.serving.resolve import resolve
from moesim.study.serving.simulate import ServingOutcome, simulate


def serve(scenario: ServingScenario) -> ServingOutcome:
    """Return what `scenario` comes to.

    Raises ScenarioError, ModelError or ProfileError for what cannot be simulated.
    """
    run = resolve(scenario)
    refuse(run)
    return simulate(run)
