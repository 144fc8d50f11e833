"""Which fp8 recipe a run has, and whether its device can do it."""

from moesim.hardware.device import Device
from moesim.model.quantisation import Quantisation
from moesim.spec.scenario import Scenario

_BLOCK_SCALES = ("fp4", "nvfp4")
"""Devices that multiply in these take block scales, and rows or columns alike."""


def quantisation(scenario: Scenario, device: Device) -> Quantisation | None:
    """Return how fp8 products get their inputs; None without fp8.

    Raises ScenarioError for mxfp8 on a device whose matrix units have no block scales.
    """
    spec = scenario.training
    if spec.precision != "fp8":
        return None
    recipe = spec.fp8_recipe or "tensorwise"
    newer = any(name in _BLOCK_SCALES for name, _ in device.peak_flop_per_s)
    if recipe == "mxfp8" and not newer:
        raise scenario.error(
            "training.fp8_recipe",
            f"mxfp8 needs matrix units with block scales, which {device.name} lacks; "
            "use blockwise, tensorwise or delayed",
        )
    return Quantisation(recipe, transposed=not newer)
