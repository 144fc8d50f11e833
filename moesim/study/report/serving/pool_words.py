"""Rows about the pools of a serving run: layout, engine, memory, iterations; what came and went."""

from collections.abc import Mapping

from moesim.study.report.serving.texts import seconds
from moesim.study.report.words import Row, binary, percent, usd
from moesim.study.serving.extras import extras
from moesim.study.serving.findings import Served
from moesim.study.serving.groups import Groups
from moesim.study.serving.pool_findings import PoolServed
from moesim.study.serving.pools import PoolRun
from moesim.study.serving.shown import pool_values
from moesim.units import readable, three_digits

WEIGHTS = (
    "attention weights", "dense and shared weights", "expert weights", "embeddings and head",
    "what guesses tokens",
)  # fmt: skip
"""The parts of memory that are weights."""


def layout_words(run: Served) -> str:
    """Return pools and degrees above one, such as "2 replicas of tp 4"."""
    pools = run.outcome.run.pools
    if len(pools) == 1:
        return _pool_layout(pools[0])
    return "; ".join(f"{pool.name}: {_pool_layout(pool)}" for pool in pools)


def _pool_layout(pool: PoolRun) -> str:
    cut = pool.engine.deployment.cut
    names = ("tp", "dp", "ep", "pp")
    parts = [f"{name} {getattr(cut, name)}" for name in names if getattr(cut, name) > 1]
    words = ", ".join(parts) or "one device"
    return f"{pool.replicas} replicas of {words}" if pool.replicas > 1 else words


def weight_bytes(parts: Mapping[str, float]) -> float:
    """Return the bytes of the parts of memory that are weights."""
    return sum(size for name, size in parts.items() if name in WEIGHTS)


def cluster_cells(run: Served) -> dict[str, str]:
    """Return what happened between replicas and beside plain decoding; "" where nothing does."""
    found, price = run.outcome.cluster, run.outcome.metrics.usd_per_million_output_tokens
    more = extras(run.outcome, run.pools)
    asked = run.outcome.run.scenario.serving.cluster
    texts = {
        "prompt tokens found in the prefix cache": "",
        "tokens per decode step, guesses included": "",
        "experts of a layer missing from the devices": "",
    }
    if more.prefix_hit_fraction is not None:
        texts["prompt tokens found in the prefix cache"] = percent(more.prefix_hit_fraction)
    if more.tokens_per_step is not None:
        texts["tokens per decode step, guesses included"] = three_digits(more.tokens_per_step)
    if more.missing_experts is not None and more.asked_experts is not None:
        texts["experts of a layer missing from the devices"] = (
            f"{three_digits(more.missing_experts)} of {three_digits(more.asked_experts)} asked for"
        )
    if found is None:
        return texts
    apart, changing = len(run.pools) > 1, asked.failures or asked.autoscaling or asked.drains
    held = found.held_fraction
    return {
        **texts,
        "caches moved from prefill to decode": f"{found.transfers:,}" if apart else "",
        "from first token to the cache's arrival, mean": seconds(found.transfer_s) if apart else "",
        "failures of replicas": f"{found.failures:,}" if asked.failures else "",
        "requests computed again after failures": f"{found.recomputed:,}" if asked.failures else "",
        "replica hours": three_digits(found.replica_s / 3600) if changing else "",
        "share of device hours that replicas held": percent(held) if changing else "",
        "price of held devices alone per million output tokens": usd(held * price)
        if changing and price is not None and held < 1 else "",
    }  # fmt: skip


def pool_rows(run: Served) -> list[Row]:
    """Return what the engines of each pool did, a column per pool; the first cell names it."""
    ranks = any(pool.run.engine.deployment.cut.dp > 1 for pool in run.pools)
    columns = [_column(pool, "on a rank" if ranks else "in a replica") for pool in run.pools]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return [row for row in rows if any(cell != "" for cell in row[1:])]


def pool_heads(run: Served) -> list[str]:
    """Return the heads of the columns of pools."""
    return [_title(pool) for pool in run.pools]


def _title(pool: PoolServed) -> str:
    return "every replica" if pool.run.name == "all" else f"{pool.run.name} replicas"


def _column(pool: PoolServed, each: str) -> dict[str, str]:
    used, memory = pool.usage, pool.memory
    decode = pool.decode.get(used.sequences) if used.sequences else None
    return {
        "layout": _pool_layout(pool.run),
        "share of the time in which it computes": percent(used.busy_fraction)
        if used.iterations else "",
        f"requests that decode together {each}, mean": f"{used.sequences:,}"
        if used.sequences else "",
        "decode iteration of so many": seconds(sum(decode.values())) if decode else "",
        f"prompt tokens of an iteration with prompts {each}, mean": f"{used.prompt_tokens:,}"
        if used.prompt_tokens else "",
        "iteration of so many alone": seconds(sum(pool.prompts.values())) if pool.prompts else "",
        f"longest queue {each}": f"{used.most_waiting:,}",
        "fullest cache": percent(used.most_cache_fraction),
        "weights per device": binary(weight_bytes(memory.parts_bytes)),
        f"cache {each}": f"{memory.cache_tokens:,} tokens",
    }  # fmt: skip


def iteration_heads(pool: PoolServed) -> list[str]:
    """Return what the iterations of a pool are that are taken apart."""
    ranks = " on each rank" if pool.run.engine.deployment.cut.dp > 1 else ""
    heads = []
    if pool.decode:
        heads.append(f"{pool.shown_sequences} requests decode{ranks}")
    if pool.prompts:
        heads.append(f"{pool.usage.prompt_tokens:,} tokens of a prompt{ranks}")
    return heads


def iteration_rows(pool: PoolServed) -> list[Row]:
    """Return the groups of these iterations, each with time and share; the largest first."""
    shown: list[Groups] = []
    if pool.decode and pool.shown_sequences:
        shown.append(pool.decode[pool.shown_sequences])
    if pool.prompts:
        shown.append(pool.prompts)
    if not shown:
        return []
    names = sorted(shown[0] | shown[-1], key=lambda name: -shown[0].get(name, 0.0))
    rows: list[Row] = [
        (name, *_cells(name, shown)) for name in names if any(one.get(name) for one in shown)
    ]
    total = [cell for one in shown for cell in (readable(sum(one.values()), "s"), "")]
    return [*rows, ("in all", *total)]


def _cells(name: str, shown: list[Groups]) -> list[str]:
    found = []
    for one in shown:
        value = one.get(name, 0.0)
        found += [readable(value, "s"), percent(value / sum(one.values()))] if value else ["", ""]
    return found


def engine_rows(run: Served) -> list[Row]:
    """Return what the engine of each pool does: setting, then a value per pool."""
    columns = [pool_values(pool.run) for pool in run.pools]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "") for column in columns)) for name in names]
