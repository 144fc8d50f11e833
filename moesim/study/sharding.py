"""Whether a layout can be fully sharded and offloaded as asked; says what must divide what."""

from moesim.cost.layout import FullSharding
from moesim.spec.parallel import ParallelSpec
from moesim.spec.scenario import Scenario


def full_sharding(
    scenario: Scenario, parallel: ParallelSpec, dp: int, key: str
) -> FullSharding | None:
    """Return how weights are sharded over `dp` data-parallel ranks; None where they are not.

    Raises ScenarioError for shard groups that do not divide these ranks or the experts' ranks.
    """
    ranks = parallel.fsdp
    if ranks == 1:
        return None
    if dp % ranks:
        raise scenario.error(
            f"{key}.fsdp",
            f"must divide dp = {dp}, the devices over tp * cp * pp; {dp} shards over all of them",
        )
    sharing, experts = parallel.tp * parallel.cp * ranks, parallel.ep * parallel.expert_tp
    if sharing % experts:
        raise scenario.error(
            f"{key}.fsdp",
            f"ep * etp = {experts} must divide tp * cp * fsdp = {sharing}, so that every shard "
            "group holds all experts",
        )
    if not scenario.training.optimizer.distributed:
        raise scenario.error(
            "training.optimizer.distributed",
            "fsdp shards the optimizer states too; leave it out, or use fsdp: 1",
        )
    overlap = scenario.training.overlap
    return FullSharding(
        ranks=ranks,
        reshard=parallel.reshard_after_forward,
        prefetch=overlap.param_gather,
        overlap_reduce=overlap.grad_reduce,
    )


def offloaded_layers(scenario: Scenario, layers: int) -> int:
    """Return how many layers of a chunk keep their activations in the host's memory.

    Raises ScenarioError where the model has fewer.
    """
    count = scenario.training.offload_layers
    if count > layers:
        raise scenario.error(
            "training.offload_layers", f"the model has {layers} layers; {layers} offloads all"
        )
    return count
