"""What a source measured of its own machine, in the place of the shipped curves.

A case file may say under `hardware` what the operators of one box reached, under a key such as
`simumax_calibration`. It holds for the cases of that source alone: the box is not a typical one.
"""

from dataclasses import replace
from typing import Any

from moesim.cost.software import Software
from moesim.spec.cases import Case, CaseFile, Words

_SUFFIX = "_calibration"
_FRACTIONS = {
    "gemm_efficiency": "gemm_fraction",
    "grouped_gemm_efficiency": "grouped_gemm_fraction",
    "attention_fwd_efficiency": "attention_fraction",
    "memory_efficiency": "memory_fraction",
    "all_gather_efficiency": "scale_up_fraction",
}
"""Shares of the datasheet peaks, by the names of the file and ours."""


def calibration_of(case: Case, file: CaseFile) -> Words | None:
    """Return the operator measurements that the source of `case` made on its machine."""
    described = file.hardware.get(case.text("hardware"), {})
    said = f"{case.id} {case.text('source')}".casefold()
    for key, words in described.items():
        if key.endswith(_SUFFIX) and key.removesuffix(_SUFFIX).casefold() in said:
            return words if isinstance(words, dict) else None
    return None


def with_calibration(software: Software, words: Words) -> Software:
    """Return `software` with the source's own efficiencies and without measured curves."""
    given: dict[str, Any] = {
        ours: float(words[theirs])
        for theirs, ours in _FRACTIONS.items()
        if isinstance(words.get(theirs), int | float)
    }
    return replace(software, kernels=None, libraries=(), **given)
