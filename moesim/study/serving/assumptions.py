"""What a serving run takes for granted, in sentences."""

from moesim.cost.serving.memory import ffn_weights
from moesim.study.serving.encoders import ASSUMED as ENCODER
from moesim.study.serving.resolve import Serving
from moesim.study.serving.settings import not_modelled, pool_settings
from moesim.units import readable


def assumptions(run: Serving) -> list[str]:
    """Return what a reader of the figures should know is not modelled or guessed."""
    on, engine = run.deployment, run.preset
    found = [
        f"Where the scenario is silent the engine does as {engine.name} {engine.version} does; "
        "engine.csv has the source of each setting.",
        "Iterations with prompts are launched kernel by kernel, without CUDA graphs.",
        "Norms, rope and activations stream at an assumed share of the memory bandwidth.",
    ]
    if left := not_modelled(pool_settings(run.scenario, run.pools[-1])):
        found.append(f"Not modelled of {engine.name} {engine.version}: {'; '.join(left)}.")
    if on.software.host_per_request_s:
        found.append(
            f"A request leaves its client {readable(on.software.host_per_request_s, 's')} before "
            "the engine has it as tokens: in TTFT, and in the times before 0."
        )
    if engine.note:
        found.append(f"{engine.name} {engine.version}: {engine.note}.")
    if on.architecture.encoder:
        found += ENCODER
    if on.architecture.is_moe:
        found.append(
            "Experts are asked for unevenly: the standard deviation of their shares is "
            f"{on.load.cv:.2g} of the mean."
        )
    if on.cut.redundant_experts:
        found.append("Copies of experts level the ranks.")
    if on.cut.pp > 1:
        found.append(
            "Batches in the pipeline do not wait for each other; each has its share of the cache, "
            "prefixes included."
        )
    if on.cut.ffn:
        found += [
            f"Each of the {on.cut.ffn} FFN devices holds {ffn_weights(on).total / 1e9:.3g} GB of "
            "weights, dense networks and shared experts whole; the memory below is of an "
            "attention device.",
            "Attention of prompts hides behind nothing, and its kernel is spread evenly over the "
            "layers; values travel in fp8 to experts and in bf16 back.",
        ]
    if on.cut.dcp > 1:
        found.append(
            "Ranks that spread a cache exchange queries and results beside nothing else; a block "
            "holds as many tokens more as there are ranks."
        )
    if on.drafting is not None:
        found.append(
            "Every step of guesses yields the mean number of tokens; attention checks them in the "
            "time of one token."
        )
    if on.offload is not None:
        found.append("Offloaded experts are asked for alike, each as often as any other.")
    ranks = max(pool.engine.deployment.cut.dp * pool.engine.deployment.cut.pp for pool in run.pools)
    if ranks > 1 and any(pool.router == "kv_aware" for pool in run.pools):
        found.append(
            "The router expects of a replica what its ranks hold of a prompt on average: they "
            "share requests by load."
        )
    if len(run.pools) > 1:
        found.append("Replicas that only decode keep no prefixes of their own.")
    if on.overlap == "two_batch":
        found.append("Attention hides none of the exchanges of the other half.")
    return found
