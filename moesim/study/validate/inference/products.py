"""Published rates of matrix products, against the curves of the device."""

from dataclasses import replace

import numpy as np

from moesim.cost.families.moe_loads import equal_loads
from moesim.cost.families.table import FAMILIES, seconds_of
from moesim.cost.fitted import Kernels, kernels_for
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import cluster
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.figures import number
from moesim.study.validate.inference.words import Row, Said, chip_of, rows, software_of
from moesim.study.validate.record import Record, ran
from moesim.study.validate.skipped import SkippedError

IN_SAMPLE = "the curve was fitted to this table, among others"


def products(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return a record of the rate of each product of a table."""
    del file
    said = Said(case)
    if "deepgemm" not in said.text("engine", "name").casefold():
        raise SkippedError("no kernels of this library are known")
    spec = load_cluster(chip_of(said))
    machines = cluster(spec, load_accelerator(spec.accelerator), 1)
    library = ("deepgemm",)
    kernels = kernels_for(machines.device, 1.0, {"gemm": library, "grouped_gemm": library})
    base = replace(record, software=software_of(case), assumed=(IN_SAMPLE,))
    found = []
    for place, row in enumerate(rows(case)):
        rate, predicted = number(row.get("TFLOPS")), _rate(row, kernels)
        if rate and predicted:
            found.append(ran(base, "TFLOPS", predicted, rate, row=place))
    return found


def _rate(row: Row, kernels: Kernels) -> float | None:
    """Return the TFLOP/s of a product, or of equal ones of a group; None where sizes lack."""
    groups = number(row.get("groups"))
    m, n, k = (number(row.get(name)) for name in ("M_per_group" if groups else "M", "N", "K"))
    if not (m and n and k) or not all(1 <= one <= 2**24 for one in (m, n, k, groups or 1)):
        return None
    family = "grouped_gemm" if groups else "gemm"
    found = kernels.first("fp8_block128", (family, ""))
    if found is None:
        raise SkippedError(f"no curve of {family} on this device")
    samples = {"m": np.array([m]), "n": np.array([n]), "k": np.array([k])}
    if groups:
        samples |= equal_loads(np.array([groups]), np.array([m]))
    seconds = seconds_of(FAMILIES[family], found.curve, samples, kernels.chip)
    return 2.0 * m * (groups or 1.0) * n * k / float(seconds[0]) / 1e12
