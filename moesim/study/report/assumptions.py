"""What a result rests on: every figure with its source and kind, and what is not modelled."""

from collections.abc import Mapping
from typing import Any

from moesim.study.outcome import Outcome
from moesim.study.report.words import percent
from moesim.study.routing_loads import sentences

KINDS = ("measured", "fitted", "datasheet", "assumed")


def figures(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the hardware and software figures that the run used, each with its source."""
    run = outcome.run
    found = (*run.cluster.figures, *run.software.figures)
    return [
        {
            "subject": figure.subject,
            "name": figure.name,
            "value": figure.text,
            "kind": figure.kind,
            "source": figure.source,
            "note": figure.note,
        }
        for figure in found
    ]


_BESIDE = {
    "none": "Gradient reduction and weight gathering run beside compute where `overlap` says so.",
    "shared_expert": "Dispatch and combine run beside shared experts and slow them.",
    "batch": "In paired passes dispatch and combine run beside the other micro-batch's compute and "
    "slow it.",
}
"""What runs beside compute, by what runs beside the exchange of tokens."""


def transfers(exchange: str, *, tensor: bool, ring: bool) -> str:
    """Return what is said of transfers.

    `tensor`: those of tensor parallelism run beside products; `ring`: keys and values travel round
    a ring of context parallel ranks.
    """
    hidden = {"Tensor": tensor, "context": ring, "expert": exchange != "none"}
    exposed = [name for name, beside in hidden.items() if not beside]
    said = [_BESIDE[exchange]]
    if exposed:
        names = " and ".join([", ".join(exposed[:-1]), exposed[-1]] if exposed[1:] else exposed)
        said.insert(0, f"{names[0].upper()}{names[1:]} parallel transfers are fully exposed.")
    if tensor:
        said.append("Tensor parallel gathers and scatters run beside the products next to them.")
    if ring:
        said.append("Keys and values travel beside the attention of those at hand.")
    return " ".join(said)


def statements(outcome: Outcome, origins: Mapping[str, float]) -> list[str]:
    """Return, in sentences, what the model of this run leaves out or takes for granted.

    `origins` are the shares of the operator time by kernel profile (footing.Footing).
    """
    run, scenario = outcome.run, outcome.run.scenario
    said = [
        *_kernel_statement(outcome, origins),
        "A kernel without a measured curve takes the longer of its FLOP at an assumed share of "
        "peak and its bytes at an assumed share of the memory bandwidth, plus a launch; small and "
        "odd shapes are not told apart beyond whole tiles per compute unit.",
        transfers(
            run.job.exchange_overlap,
            tensor=run.layout.tensor_overlap,
            ring=run.layout.cp > 1 and run.layout.cp_comm == "ring",
        ),
        "Transfers between pipeline stages delay the receiver and do not slow compute. Transfers "
        "of different groups at the same time do not share the rate of a link.",
        _data_statement(outcome),
        _host_statement(outcome),
    ]
    said += _older_code(outcome)
    if run.architecture.is_moe:
        said += [
            *_load_statements(outcome),
            _micro_batch_statement(outcome),
            "Bytes of dispatch and combine follow the fan-out of uniform choices (groups picked by "
            "scores, where the model limits them); their time the fullest rank.",
        ]
        said += _capacity_statement(outcome)
    if scenario.baseline:
        said.append(
            "Baselines take the scenario's batch, precision, recomputation and overlap; a layout "
            "is searched for where none is given."
        )
    if scenario.training.optimizer.offload:
        said.append("The host's own time for an offloaded optimizer update is left out.")
    if scenario.training.precision == "fp8":
        said.append("fp8: norms, attention, router and logits run in bf16.")
    return said


def _data_statement(outcome: Outcome) -> str:
    if outcome.run.scenario.training.data_loading is None:
        return "Data is always there in time: the scenario gives no training.data_loading."
    waited = outcome.first.load_exposed_s / outcome.first.seconds
    return (
        "Data of the next step is read and prepared, each token once, while a step runs; "
        f"{percent(waited)} of the first step waits for it. Nothing else uses that storage."
    )


def _host_statement(outcome: Outcome) -> str:
    software = outcome.run.software
    if software.cuda_graph == "full":
        return "Whole passes are launched at once, so the device never waits for the host."
    figure = next((one for one in software.figures if one.name == "host_per_kernel"), None)
    if figure is None:
        return f"The device never waits for the host: {software.name} has no host_per_kernel."
    return (
        f"The device waits where the host is behind with its launches: {figure.text} per kernel "
        f"({figure.kind}), but for what training.cuda_graph launches at once."
    )


def _kernel_statement(outcome: Outcome, origins: Mapping[str, float]) -> list[str]:
    software = outcome.run.software
    if software.kernels is None:
        return []
    tags = {found.profile: found.tag for found in software.kernels.found.values() if found}
    used = ", ".join(f"{name} ({tags[name]}, {percent(share)})"
                     for name, share in origins.items() if name)  # fmt: skip
    return [f"Kernel times come from {used or 'no measured kernel'}. {software.kernels_reason}."]


def _older_code(outcome: Outcome) -> list[str]:
    """Say what of a trainer's code is counted from documents instead of measured kernels."""
    spec = outcome.run.scenario.training
    said: list[str] = []
    if spec.fusions != "full":
        said.append(
            f"Between products the passes of {spec.fusions} are counted, each reading its inputs "
            "and writing its outputs once; values per row and per channel are left out."
        )
    if spec.attention_kernel in ("flash_1", "flash_2"):
        version = spec.attention_kernel[-1]
        said.append(
            f"Attention is FlashAttention of version {version}: measured kernels, longer by the "
            "speedups that the papers of its successors state, forward and backward alike."
        )
    return said


def _load_statements(outcome: Outcome) -> list[str]:
    from moesim.study.routing import drawing, moe_layers

    run = outcome.run
    return sentences(drawing(next(moe_layers(run)), run))


def _micro_batch_statement(outcome: Outcome) -> str:
    """Say which micro-batches see which loads."""
    held_up = "the fullest rank holds the others up at each exchange."
    if outcome.varied is None:
        return f"The micro-batches of a step see the same loads; {held_up}"
    drawn, all_of_them = (next(iter(outcome.varied.values())).drawn, outcome.run.micro_batches)
    repeated = "" if drawn == all_of_them else f" ({drawn} of {all_of_them}, then again in turn)"
    return (
        "Experts are as popular in all micro-batches of a step, each of which draws tokens of its "
        f"own{repeated} and counts its capacity itself; {held_up} Passes lie between two that are "
        "priced exactly, their layers as evenly and as unevenly loaded as any micro-batch makes "
        "them. One expert-parallel group is drawn: the others, with tokens of their own, would be "
        "waited for when gradients are reduced. Tables of layers and operators show the first "
        "micro-batch."
    )


def _capacity_statement(outcome: Outcome) -> list[str]:
    from moesim.study.routing import moe_layers

    factors = {layer.ffn.capacity_factor for layer in moe_layers(outcome.run)} - {None}
    if not factors or outcome.run.scenario.routing.capacity is not None:
        return []
    listed = ", ".join(f"{factor:g}" for factor in sorted(f for f in factors if f is not None))
    return [
        f"The published recipe of {outcome.run.architecture.name} has capacity factor {listed}; "
        "this scenario names no capacity, so nothing is dropped."
    ]
