"""What a serving run takes for granted, in sentences."""

from moesim.cost.serving.memory import ffn_weights
from moesim.study.serving.resolve import Serving


def assumptions(run: Serving) -> list[str]:
    """Return what a reader of the figures should know is not modelled or guessed."""
    on, engine = run.deployment, run.preset
    found = [
        f"Where the scenario is silent the engine does as {engine.name} {engine.version} does; the "
        "table of the engine's settings has the source of each.",
        "Iterations with prompts are launched kernel by kernel, without CUDA graphs.",
        "Norms, rope and activations stream at an assumed share of the memory bandwidth.",
    ]
    if engine.note:
        found.append(f"{engine.name} {engine.version}: {engine.note}.")
    if on.architecture.is_moe:
        found.append(f"Experts are loaded unevenly: shares with a CV of {on.load.cv:.2g}.")
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
