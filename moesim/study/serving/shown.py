"""What a serving run rests on: the engine's values, every default resolved, and its kernels."""

from dataclasses import asdict

from moesim.study.serving.pools import PoolRun
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
    """Return what the engine does that decodes, every default resolved."""
    return {**pool_engine(run.pools[-1]), "replicas": run.replicas}


def pool_engine(pool: PoolRun) -> dict[str, object]:
    """Return what the engine of a pool does, every default resolved."""
    engine = pool.engine
    return {
        "engine": engine.preset.name,
        "version": engine.preset.version,
        "software": engine.deployment.software.name,
        **asdict(engine.rules),
        "cache_tokens": engine.rules.blocks * engine.rules.block_tokens,
        "replicas": pool.replicas,
        **asdict(engine.deployment.cut),
        "formats": asdict(engine.deployment.formats),
    }


def engine_defaults(run: Serving) -> list[dict[str, object]]:
    """Return every setting of the engine as it runs, and where that comes from."""
    return [
        {"pool": pool.name, "setting": name, "value": one.value, "source": one.source}
        for pool in run.pools
        for name, one in pool_settings(run.scenario, pool).items()
    ]


def pool_values(pool: PoolRun) -> dict[str, str]:
    """Return the settings of a pool's engine and its layout in words, every default resolved."""
    engine = pool.engine
    rules, cut, formats = engine.rules, engine.deployment.cut, engine.deployment.formats
    most = rules.max_model_tokens
    found = {
        "engine": f"{engine.preset.name} {engine.preset.version}",
        "software profile": engine.deployment.software.name,
        "batching": rules.batching,
        "requests that run at the same time, at most": f"{rules.max_sequences:,}",
        "tokens of an iteration, at most": f"{rules.token_budget:,}",
        "tokens of a request, at most": f"{most:,}" if most else "what the cache holds",
        "cache": f"{rules.blocks:,} blocks of {rules.block_tokens} tokens",
        "room for the whole output kept from the start": _yes(rules.reserve_output),
        "prefix caching": _yes(rules.prefix_caching),
        "replicas": f"{pool.replicas:,}",
        "router": pool.router if pool.replicas > 1 else "",
        "layout": ", ".join(f"{name} {getattr(cut, name)}" for name in ("tp", "dp", "ep", "pp")),
        "exchange of tokens": cut.exchange if cut.dp > 1 else "",
        "copies of experts": f"{cut.redundant_experts:,}" if cut.redundant_experts else "",
        "guesses checked per step": f"{rules.checked_tokens - 1:,}"
        if rules.checked_tokens > 1 else "",
        "formats": ", ".join(f"{name} {one}" for name, one in asdict(formats).items()),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value}


def _yes(value: bool) -> str:
    return "yes" if value else "no"
