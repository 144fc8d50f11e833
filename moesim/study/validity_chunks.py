"""Whether layers can be spread over chunks, and passes paired, as layout and overlap say."""

from moesim.cost.layout import Layout
from moesim.cost.pipeline import equal_sizes
from moesim.errors import ScenarioError
from moesim.model.architecture import Architecture, MoeFfn
from moesim.spec.scenario import Scenario
from moesim.spec.schedule_names import PAIRED, UNPAIRED


def check_chunks(scenario: Scenario, architecture: Architecture, layout: Layout, key: str) -> None:
    """Raise ScenarioError where there are too few layers, or others than the layout names."""
    if layout.chunk_layers is not None:
        _check_layout(scenario, architecture, layout, key)
        return
    positions, layers = layout.pp * layout.vpp, architecture.num_layers
    if positions > layers and equal_sizes(layers, positions) is None:
        raise scenario.error(
            f"{key}.pp",
            f"pp * vpp = {positions} chunks, but {architecture.name} has {layers} layers",
        )


def _check_layout(scenario: Scenario, architecture: Architecture, layout: Layout, key: str) -> None:
    assert layout.chunk_layers is not None
    found = (("t", "layers", sum(layout.chunk_layers), architecture.num_layers),
             ("m", "MTP modules", layout.chunk_mtp, architecture.mtp_layers))  # fmt: skip
    for letter, what, given, has in found:
        if given != has:
            raise _wrong(
                scenario, key, f"{architecture.name} has {has} {what}, but {given} {letter}"
            )


def _wrong(scenario: Scenario, key: str, message: str) -> ScenarioError:
    return scenario.error(f"{key}.layout", f"{message} are laid out")


def check_overlap(scenario: Scenario, architecture: Architecture, layout: Layout, key: str) -> None:
    """Raise ScenarioError where nothing can run beside transfers as asked."""
    _check_tensor(scenario, layout, key)
    overlap, where = scenario.training.overlap.expert_exchange, "training.overlap.expert_exchange"
    if overlap == "shared_expert" and not _has_shared(architecture) and architecture.is_moe:
        raise scenario.error(where, f"{architecture.name} has no shared experts; use batch or none")
    if overlap != "batch" or not architecture.is_moe:
        return
    if layout.schedule in UNPAIRED:
        raise scenario.error(
            f"{key}.schedule",
            f"{layout.schedule} pairs no passes; use 1f1b or dualpipe, or overlap none",
        )
    if layout.schedule not in PAIRED and layout.pp > 1 and layout.vpp == 1:
        raise scenario.error(
            where,
            "batch needs pp: 1, or vpp above 1: without it the two passes of a pair wait for each "
            "other over the stages, as in Megatron-LM",
        )


def _check_tensor(scenario: Scenario, layout: Layout, key: str) -> None:
    """A baseline may have no tensor parallelism where the scenario has."""
    if key != "parallel" or not scenario.training.overlap.tensor_parallel:
        return
    if layout.tp == 1 or not layout.sequence_parallel:
        raise scenario.error(
            "training.overlap.tensor_parallel",
            "needs parallel.tp above 1 with sequence_parallel: true; else there are no gathers and "
            "scatters to run beside products",
        )


def _has_shared(architecture: Architecture) -> bool:
    return any(
        isinstance(run.layer.ffn, MoeFfn) and run.layer.ffn.shared_width
        for run in architecture.decoder
    )


_FEWEST = {"dualpipe_v": ("2 * pp", 0), "zb_h2": ("2 * pp - 1", 1), "zb_v": ("2 * pp - 1", 1)}


def _check_few(scenario: Scenario, layout: Layout, micro_batches: int, key: str) -> None:
    if layout.schedule not in _FEWEST:
        return
    formula, less = _FEWEST[layout.schedule]
    fewest = 2 * layout.pp - less
    if micro_batches < fewest:
        raise scenario.error(
            f"{key}.schedule",
            f"{layout.schedule} needs {formula} = {fewest} micro-batches or more; there are "
            f"{micro_batches}",
        )


def check_schedule(scenario: Scenario, layout: Layout, micro_batches: int, key: str) -> None:
    """Raise ScenarioError where a schedule has too few micro-batches or stages to do what it does.

    DualPipe halves them; updates that do not wait need other stages.
    """
    if scenario.training.optimizer.post_validation and layout.pp == 1:
        raise scenario.error(
            "training.optimizer.post_validation", "needs pp above 1: there is no stage to wait for"
        )
    _check_few(scenario, layout, micro_batches, key)
    if layout.schedule != "dualpipe":
        return
    if layout.pp % 2:
        raise scenario.error(
            f"{key}.pp", f"dualpipe needs an even number of stages, not {layout.pp}"
        )
    if micro_batches % 2 or micro_batches < 2 * layout.pp:
        raise scenario.error(
            f"{key}.schedule",
            f"dualpipe needs an even number of micro-batches, 2 * pp = {2 * layout.pp} or more; "
            f"there are {micro_batches}",
        )
