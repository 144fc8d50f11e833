"""A routing study in words and rows: what terminal and page share."""

from typing import Any

from moesim.study.report.words import percent
from moesim.units import three_digits

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
    return said


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


def figures(summed: dict[str, Any]) -> list[Row]:
    """Return the figures of a study, name and value."""
    rows = [
        ("tokens routed together", f"{summed['group_tokens']:,}"),
        ("assignments per token", three_digits(summed["assignments_per_token"])),
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
        ("distinct ranks per token", three_digits(summed["reach"]["ranks"])),
        ("distinct domains per token", three_digits(summed["reach"]["domains"])),
    ]
    rows += [
        (
            f"rows sent per token, {one['dispatcher']}",
            f"{three_digits(one['scale_up_rows_per_token'])} inside, "
            f"{three_digits(one['scale_out_rows_per_token'])} between domains",
        )
        for one in summed["dispatch"]
    ]
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
