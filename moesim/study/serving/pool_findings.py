"""What each pool of a serving run comes to: memory, where its iterations go, how busy it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from moesim.study.serving.groups import BATCHES, Groups, decode_groups, prompt_groups
from moesim.study.serving.memory import DeviceMemory, pool_memory
from moesim.study.serving.pools import PoolRun
from moesim.study.serving.simulate import ServingOutcome, times_of
from moesim.study.serving.usage import Usage, engine_places, usage


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolServed:
    """A pool of replicas that are alike, after a run."""

    run: PoolRun
    memory: DeviceMemory
    usage: Usage
    decode: Mapping[int, Groups]
    """Seconds of a decode iteration by group of operators, by sequences; nothing where none do."""
    prompts: Groups
    """Seconds by group of an iteration with as many tokens of a prompt as the run had on average;
    nothing where no prompts are computed."""

    @property
    def shown_sequences(self) -> int | None:
        """The sequences of the decode iteration to show: the run's mean, else the most."""
        return self.usage.sequences or (max(self.decode) if self.decode else None)


def pools_served(
    outcome: ServingOutcome, longest_tokens: int, context_tokens: int
) -> tuple[PoolServed, ...]:
    """Return the pools of a run whose longest request has `longest_tokens`."""
    run = outcome.run
    places = engine_places(run.pools, outcome.logs)
    return tuple(
        _served(pool, usage([one for one in places if one.pool == pool.name]), longest_tokens,
                context_tokens)
        for pool in run.pools
    )  # fmt: skip


def _served(pool: PoolRun, used: Usage, longest_tokens: int, context_tokens: int) -> PoolServed:
    engine = pool.engine
    times, most = times_of(engine), engine.rules.max_sequences
    batches = {batch for batch in BATCHES if batch <= most} | {used.sequences or 1}
    decodes, prompts = pool.name != "prefill", pool.name != "decode" and used.prompt_tokens
    return PoolServed(
        run=pool, memory=pool_memory(pool, longest_tokens), usage=used,
        decode=decode_groups(engine.deployment, times, context_tokens, sorted(batches))
        if decodes else {},
        prompts=prompt_groups(engine.deployment, times, used.prompt_tokens)
        if prompts and used.prompt_tokens else {},
    )  # fmt: skip
