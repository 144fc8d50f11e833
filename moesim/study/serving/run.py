"""Runs a serving scenario: the model, and the baselines beside it."""

from dataclasses import replace

import numpy as np

from moesim.errors import ScenarioError
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.baseline import EQUAL, dense_twin
from moesim.study.resolve import baseline_model
from moesim.study.serving.advice import advice
from moesim.study.serving.curve import curve
from moesim.study.serving.findings import Served
from moesim.study.serving.memory import device_memory
from moesim.study.serving.pool_findings import pools_served
from moesim.study.serving.refused import refuse
from moesim.study.serving.resolve import Serving, resolve
from moesim.study.serving.result import ServingResult
from moesim.study.serving.simulate import simulate


def serve(
    scenario: ServingScenario, dialect: str = "vllm", *, step_by_step: bool = False
) -> ServingResult:
    """Return what `scenario` comes to, its latencies as `dialect` defines them.

    `step_by_step` simulates each decode step on its own instead of skipping to the next change.
    What does not fit or misses the objective is a result, not an error. Raises ScenarioError,
    ModelError or ProfileError for what cannot be simulated.
    """
    run = replace(resolve(scenario), step_by_step=step_by_step)
    refuse(run)
    dense = tuple(_baseline(scenario, run, number) for number in range(len(scenario.baseline)))
    return ServingResult(
        scenario=scenario, model=_served(run, ""), baselines=dense, dialect=dialect
    )


def _served(run: Serving, relation: str) -> Served:
    outcome = simulate(run)
    asked = outcome.requests
    longest = max(p + o for p, o in zip(asked.prompt, asked.output, strict=True))
    context = round(float(np.mean(asked.prompt) + np.mean(asked.output) / 2))
    memory = device_memory(run, longest)
    return Served(
        relation=relation, outcome=outcome, memory=memory, curve=curve(outcome),
        context_tokens=context, pools=pools_served(outcome, longest, context),
        changes=() if memory.fits or relation else advice(run, longest, context),
    )  # fmt: skip


def _baseline(scenario: ServingScenario, beside: Serving, number: int) -> Served:
    spec, key = scenario.baseline[number], f"baseline.{number}"
    model = beside.deployment.architecture
    if spec.model is not None:
        architecture = baseline_model(scenario, f"{key}.model", spec.model)
        relation = "the model you named"
    elif not model.is_moe:
        raise scenario.error(
            f"{key}.equal", f"{model.name} has no experts to derive a dense twin from"
        )
    else:
        assert spec.equal is not None
        architecture, relation = dense_twin(model, spec.equal), EQUAL[spec.equal]
    parallel = spec.parallel or scenario.serving.parallel.model_copy(update={"ep": 1})
    serving = scenario.serving.model_copy(update={"parallel": parallel})
    try:
        run = resolve(scenario.model_copy(update={"serving": serving}), architecture)
        refuse(run)
    except ScenarioError as error:
        found = error.problems[0]
        said = f"{architecture.name} cannot run beside it: {found.path} {found.message}"
        raise scenario.error(key, said) from None
    return _served(replace(run, step_by_step=beside.step_by_step), relation)
