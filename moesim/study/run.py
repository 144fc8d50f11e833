"""Runs a scenario: the model, and the dense baseline beside it."""

from collections.abc import Callable

from moesim.spec.scenario import Scenario
from moesim.study.advice import advice
from moesim.study.baseline import baseline
from moesim.study.campaign import campaign
from moesim.study.resolve import resolve
from moesim.study.result import Result
from moesim.study.router_rules import check_placement
from moesim.study.simulate import simulate

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def run(scenario: Scenario, progress: Progress | None = None) -> Result:
    """Return what `scenario` comes to.

    A model that does not fit is a result (`Result.fits` is False), not an error. Raises
    ScenarioError, ModelError or ProfileError for what cannot be simulated.
    """
    tell = progress or (lambda what, done, total: None)
    check_placement(scenario)
    training = resolve(scenario)
    outcome = simulate(training, lambda done, total: tell("simulating steps", done, total))
    whole = campaign(training, outcome, lambda done, total: tell("campaigns", done, total))
    dense = []
    for number in range(len(scenario.baseline)):
        tell("dense baselines", number, len(scenario.baseline))
        dense.append(baseline(scenario, training, number))
    return Result(
        scenario=scenario,
        outcome=outcome,
        baselines=tuple(dense),
        changes=() if outcome.fits else advice(training),
        campaign=whole,
    )
