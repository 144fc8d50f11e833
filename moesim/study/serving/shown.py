"""What a serving run rests on: the engine's values, every default resolved, and its kernels."""

from dataclasses import asdict

from moesim.study.serving.resolve import Serving
from moesim.study.serving.settings import pool_settings


def kernels(run: Serving) -> list[dict[str, str]]:
    """Return the measured curves that the run asked for, and whether it found them."""
    found = run.deployment.kernels.found
    rows = {}
    for asked, curve_ in found.items():
        what = ", ".join(_words(asked))
        rows[what] = {
            "kernel": what,
            "tag": curve_.tag if curve_ is not None else "none",
            "profile": curve_.profile if curve_ is not None else "",
        }
    return [rows[what] for what in sorted(rows)]


def _words(asked: object) -> list[str]:
    if isinstance(asked, tuple):
        return [word for part in asked for word in _words(part)]
    return [str(asked)] if str(asked) else []


def engine_values(run: Serving) -> dict[str, object]:
    """Return what the engine does, every default resolved."""
    return {
        "engine": run.preset.name,
        "version": run.preset.version,
        "software": run.deployment.software.name,
        **asdict(run.rules),
        "cache_tokens": run.rules.blocks * run.rules.block_tokens,
        "replicas": run.replicas,
        **asdict(run.deployment.cut),
        "formats": asdict(run.deployment.formats),
    }


def engine_defaults(run: Serving) -> list[dict[str, object]]:
    """Return every setting of the engine as it runs, and where that comes from."""
    return [
        {"pool": pool.name, "setting": name, "value": one.value, "source": one.source}
        for pool in run.pools
        for name, one in pool_settings(run.scenario, pool).items()
    ]
