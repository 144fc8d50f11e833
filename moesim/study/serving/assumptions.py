"""What a serving run takes for granted, in sentences."""

from collections.abc import Iterator

from moesim.cost.serving.deployment import Cut, Deployment
from moesim.cost.serving.memory import ffn_weights
from moesim.study.serving.encoders import ASSUMED as ENCODER
from moesim.study.serving.resolve import Serving
from moesim.study.serving.settings import not_modelled, pool_settings
from moesim.units import readable


def assumptions(run: Serving) -> list[str]:
    """Return what a reader of the figures should know is not modelled or guessed."""
    return [
        *_of_engine(run),
        *_of_model(run.deployment),
        *_of_layout(run.deployment),
        *_of_pools(run),
    ]


def _of_engine(run: Serving) -> Iterator[str]:
    on, engine = run.deployment, run.preset
    yield (
        f"Where the scenario is silent the engine does as {engine.name} {engine.version} does; "
        "engine.csv has the source of each setting."
    )
    yield "Iterations with prompts are launched kernel by kernel, without CUDA graphs."
    yield "Norms, rope and activations stream at an assumed share of the memory bandwidth."
    if left := not_modelled(pool_settings(run.scenario, run.pools[-1])):
        yield f"Not modelled of {engine.name} {engine.version}: {'; '.join(left)}."
    if on.software.host_per_request_s:
        yield (
            f"A request leaves its client {readable(on.software.host_per_request_s, 's')} before "
            "the engine has it as tokens: in TTFT, and in the times before 0."
        )
    if engine.note:
        yield f"{engine.name} {engine.version}: {engine.note}."


def _of_model(on: Deployment) -> Iterator[str]:
    if on.architecture.encoder:
        yield from ENCODER
    if on.architecture.is_moe:
        yield (
            "Experts are asked for unevenly: the standard deviation of their shares is "
            f"{on.load.cv:.2g} of the mean."
        )
    if on.drafting is not None:
        yield (
            "Every step of guesses yields the mean number of tokens; attention checks them in the "
            "time of one token."
        )
    if on.offload is not None:
        yield "Offloaded experts are asked for alike, each as often as any other."


def _of_layout(on: Deployment) -> Iterator[str]:
    cut: Cut = on.cut
    if cut.redundant_experts:
        yield "Copies of experts level the ranks."
    if cut.pp > 1:
        yield (
            "Batches in the pipeline do not wait for each other; each has its share of the cache, "
            "prefixes included."
        )
    if cut.ffn:
        yield (
            f"Each of the {cut.ffn} FFN devices holds {ffn_weights(on).total / 1e9:.3g} GB of "
            "weights, dense networks and shared experts whole; the memory below is of an "
            "attention device."
        )
        yield (
            "Attention of prompts hides behind nothing, and its kernel is spread evenly over the "
            "layers; values travel in fp8 to experts and in bf16 back."
        )
    if cut.dcp > 1:
        yield (
            "Ranks that spread a cache exchange queries and results beside nothing else; a block "
            "holds as many tokens more as there are ranks."
        )
    if on.overlap == "two_batch":
        yield "Attention hides none of the exchanges of the other half."


def _of_pools(run: Serving) -> Iterator[str]:
    cuts = [pool.engine.deployment.cut for pool in run.pools]
    aware = any(pool.router == "kv_aware" for pool in run.pools)
    if aware and max(cut.dp * cut.pp for cut in cuts) > 1:
        yield (
            "The router expects of a replica what its ranks hold of a prompt on average: they "
            "share requests by load."
        )
    if len(run.pools) > 1:
        yield "Replicas that only decode keep no prefixes of their own."
