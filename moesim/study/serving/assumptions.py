"""What a serving run takes for granted, in words."""

from moesim.study.serving.resolve import Serving


def assumptions(run: Serving) -> list[str]:
    """Return what a reader of the figures should know is not modelled or guessed."""
    on = run.deployment
    found = [
        f"engine defaults of {run.preset.name} {run.preset.version}",
        "prefix caching, speculative decoding and multi-token prediction are left out",
        "decoding is launched as CUDA graphs without padding; iterations with prompts kernel by "
        "kernel",
        "norms, rope and activations stream at an assumed share of the memory bandwidth",
    ]
    if run.preset.note:
        found.append(run.preset.note)
    if on.architecture.is_moe:
        found.append(f"experts are loaded unevenly: shares with a CV of {on.load.cv:.2g}")
    if on.cut.redundant_experts:
        found.append("copies of experts level the ranks and take no memory")
    if on.cut.pp > 1:
        found.append("batches in the pipeline do not wait for each other")
    if on.overlap == "two_batch":
        found.append("attention hides none of the exchanges of the other half")
    return found
