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
    expected = summed["expected_dropped_fraction"]
    return "" if expected is None else f" (closed form: {percent(expected)})"


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
        ("empty slots", percent(summed["capacity_waste_fraction"])),
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
