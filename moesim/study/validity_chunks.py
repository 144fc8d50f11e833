"""Whether the layers of a model can be spread over the chunks of a pipeline as a layout says."""

from moesim.cost.layout import Layout
from moesim.cost.pipeline import equal_sizes
from moesim.errors import ScenarioError
from moesim.model.architecture import Architecture
from moesim.spec.scenario import Scenario


def check_chunks(scenario: Scenario, architecture: Architecture, layout: Layout, key: str) -> None:
    """Raise ScenarioError where there are too few layers, or others than the layout names."""
    if layout.chunk_layers is not None:
        _check_layout(scenario, architecture, layout, key)
        return
    positions, layers = layout.pp * layout.vpp, architecture.num_layers
    if positions > layers and equal_sizes(layers, positions) is None:
        raise scenario.error(
            f"{key}.pp",
            f"pp * vpp = {positions} chunks, but {architecture.name} has {layers} layers",
        )


def _check_layout(scenario: Scenario, architecture: Architecture, layout: Layout, key: str) -> None:
    assert layout.chunk_layers is not None
    found = (("t", "layers", sum(layout.chunk_layers), architecture.num_layers),
             ("m", "MTP modules", layout.chunk_mtp, architecture.mtp_layers))  # fmt: skip
    for letter, what, given, has in found:
        if given != has:
            raise _wrong(
                scenario, key, f"{architecture.name} has {has} {what}, but {given} {letter}"
            )


def _wrong(scenario: Scenario, key: str, message: str) -> ScenarioError:
    return scenario.error(f"{key}.layout", f"{message} are laid out")
