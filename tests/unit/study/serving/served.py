"""Serving runs for tests, resolved from a few words of YAML."""

from pathlib import Path

from moesim.spec.load import load_serving
from moesim.study.serving.resolve import Serving, resolve


def served(
    folder: Path, model: str, *, devices: int = 1, cluster: str = "dgx-h100", serving: str = ""
) -> Serving:
    """Return the run of a small offline workload; `serving` are further keys, one a line."""
    keys = "".join(f"  {line}\n" for line in serving.splitlines())
    workload = "{arrivals: at_once, requests: 8, prompt: 100, output: 20}"
    if "workload:" not in serving:
        keys += f"  workload: {workload}\n"
    file = folder / "scenario.yaml"
    file.write_text(
        f"model: {model}\ncluster: {{profile: {cluster}, devices: {devices}}}\nserving:\n{keys}"
    )
    return resolve(load_serving(file))
