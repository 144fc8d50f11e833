"""Small scenarios that the tests of studies share."""

from pathlib import Path

from moesim.spec.load import load_scenario
from moesim.spec.scenario import Scenario

SMALL = """
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 8, price: 2 USD/h}
parallel: {pp: 2, ep: 4}
training: {sequence_length: 1024, global_batch: 16}
"""


def small(folder: Path, more: str = "", *settings: str) -> Scenario:
    """Return the small scenario with further YAML lines and --set settings."""
    file = folder / "small.yaml"
    file.write_text(SMALL + more, encoding="utf-8")
    return load_scenario(file, settings)
