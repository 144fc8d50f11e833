"""A routing study in words and rows: what terminal and page share."""

from typing import Any

from moesim.study.report.words import binary, percent
from moesim.units import readable, three_digits

Row = tuple[str, str]


def verdict(summed: dict[str, Any]) -> list[str]:
    """Return what a reader should take away, in a few sentences."""
    said = [
        f"{summed['model']}: {summed['tokens']:,} tokens choose "
        f"{three_digits(summed['assignments_per_token'])} of {summed['experts']} experts each, "
        f"in {summed['moe_layers']} MoE layers on {summed['ranks']} expert-parallel ranks.",
        f"The fullest expert gets {three_digits(summed['expert_imbalance'])} times the mean, the "
        f"fullest rank {three_digits(summed['rank_imbalance'])} times"
        + _against_order(summed)
        + ".",
    ]
    if summed["dropped_tokens"]:
        said.append(
            f"{percent(summed['dropped_fraction'])} of the assignments are dropped{_closed(summed)}"
            f"; {percent(summed['capacity_waste_fraction'])} of the slots stay empty."
        )
    return [*said, *_waiting(summed), *_rebalancing(summed)]


def _waiting(summed: dict[str, Any]) -> list[str]:
    found = summed["stragglers"]
    lost, total = found["lost_s"], found["fullest_experts_s"]
    if not lost or lost < 5e-4 * total:
        return []
    return [
        f"Waiting for the fullest rank takes {percent(lost / total)} of the experts' "
        f"{readable(total, 's')} forward, all MoE layers together."
    ]


def _rebalancing(summed: dict[str, Any]) -> list[str]:
    found = summed["rebalancing"]
    if found is None:
        return []
    return [
        f"Placed anew every {found['rebalance_every']:,} steps, the fullest rank has "
        f"{three_digits(found['rank_imbalance'])} times the mean while loads drift, not "
        f"{three_digits(found['rank_imbalance_kept'])}; each time up to "
        f"{binary(found['fullest_received_bytes'])} of weights arrive on a rank, in "
        f"{readable(found['transfer_s'], 's')} where nothing of it is hidden."
    ]


def _against_order(summed: dict[str, Any]) -> str:
    plain = summed["rank_imbalance_contiguous"]
    if abs(plain - summed["rank_imbalance"]) < 5e-4:
        return ""
    memory = summed["replica_memory_fraction"]
    cost = f", for {percent(memory)} more expert memory" if memory else ""
    return f" ({three_digits(plain)} with the experts in order{cost})"


def _closed(summed: dict[str, Any]) -> str:
    return f" ({expected_words(summed)})" if summed["expected_drop_kind"] else ""


def expected_words(figures: dict[str, Any]) -> str:
    """Return the dropped share to expect, how it was found, and its standard error if drawn."""
    kind, fraction = figures["expected_drop_kind"], figures["expected_dropped_fraction"]
    error = figures["expected_drop_standard_error"]
    off = f" ± {percent(error)}" if error else ""
    return "-" if fraction is None else f"{kind}: {percent(fraction)}{off}"


def _known(value: float | None) -> str:
    return "no closed form" if value is None else three_digits(value)


def figures(summed: dict[str, Any]) -> list[Row]:
    """Return the figures of a study, name and value."""
    rows = [
        ("tokens routed together", f"{summed['group_tokens']:,}"),
        ("assignments per token", three_digits(summed["assignments_per_token"])),
        ("expected assignments per token", _known(summed["expected_assignments_per_token"])),
        ("fullest expert over mean", three_digits(summed["expert_imbalance"])),
        ("fullest slot over mean", three_digits(summed["slot_imbalance"])),
        ("fullest rank over mean", three_digits(summed["rank_imbalance"])),
        ("with experts in order", three_digits(summed["rank_imbalance_contiguous"])),
        ("dropped assignments", percent(summed["dropped_fraction"])),
        ("expected to be dropped", expected_words(summed)),
        ("empty slots", percent(summed["capacity_waste_fraction"])),
        ("rows computed for nothing", percent(summed["padded_fraction"])),
        *_blocks(summed["block_padding"]),
        *_left_out(summed["drops"]),
        ("memory of redundant experts", percent(summed["replica_memory_fraction"])),
        ("distinct ranks per token, closed form", three_digits(summed["reach"]["ranks"])),
        ("distinct domains per token, closed form", three_digits(summed["reach"]["domains"])),
    ]
    rows += [
        (
            f"rows sent per token, {one['dispatcher']}"
            + (f" level {one['level']}" if one["level"] else ""),
            f"{three_digits(one['scale_up_rows_per_token'])} inside, "
            f"{three_digits(one['scale_out_rows_per_token'])} between domains",
        )
        for one in summed["dispatch"]
    ]
    return [*rows, *_costs(summed)]


def _costs(summed: dict[str, Any]) -> list[Row]:
    found = summed["stragglers"]
    rows = [
        ("distinct ranks per token, as placed", three_digits(summed["reach_as_placed"]["ranks"])),
        (
            "distinct domains per token, as placed",
            three_digits(summed["reach_as_placed"]["domains"]),
        ),
        (
            "MoE activations, fullest rank",
            f"{binary(found['fullest_activation_bytes'])} (mean "
            f"{binary(found['mean_activation_bytes'])})",
        ),
    ]
    if found["lost_s"] is not None:
        rows.append(
            (
                "lost to the fullest rank, forward",
                f"{readable(found['lost_s'], 's')} (met once: "
                f"{readable(found['lost_met_once_s'], 's')})",
            )
        )
    return rows


def _blocks(padding: dict[str, Any]) -> list[Row]:
    if not padding:
        return []
    drawn = percent(padding["block_overhead_fraction"])
    half = padding["half_block_overhead_fraction"]
    exact = padding["expected_block_overhead_fraction"]
    said = [f"{percent(half)} by half a block per expert"]
    said += [f"{percent(exact)} expected"] if exact is not None else []
    return [(f"padding to blocks of {padding['block_rows']}", f"{drawn} ({', '.join(said)})")]


def _left_out(drops: list[dict[str, Any]]) -> list[Row]:
    return [
        ("tokens that no expert computes", percent(row["residual_tokens_fraction"]))
        for row in drops
        if row["by"] == "all"
    ]
