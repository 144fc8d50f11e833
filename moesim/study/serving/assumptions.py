"""What a serving run takes for granted, in sentences."""

from moesim.study.serving.resolve import Serving


def assumptions(run: Serving) -> list[str]:
    """Return what a reader of the figures should know is not modelled or guessed."""
    on, engine = run.deployment, run.preset
    found = [
        f"Where the scenario is silent the engine does as {engine.name} {engine.version} does; the "
        "table of the engine's settings has the source of each.",
        "Prefix caching, speculative decoding and multi-token prediction are left out.",
        "Decoding is launched as CUDA graphs without padding; iterations with prompts kernel by "
        "kernel.",
        "Norms, rope and activations stream at an assumed share of the memory bandwidth.",
    ]
    if engine.note:
        found.append(f"{engine.name} {engine.version}: {engine.note}.")
    if on.architecture.is_moe:
        found.append(f"Experts are loaded unevenly: shares with a CV of {on.load.cv:.2g}.")
    if on.cut.redundant_experts:
        found.append("Copies of experts level the ranks and take no memory.")
    if on.cut.pp > 1:
        found.append("Batches in the pipeline do not wait for each other.")
    if on.overlap == "two_batch":
        found.append("Attention hides none of the exchanges of the other half.")
    return found
