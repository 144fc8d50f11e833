"""How fast products are priced. Run by hand: pytest -m slow -p benchmark, with this file."""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moesim.cost.chips import chip
from moesim.cost.families import gemm
from moesim.cost.families.table import seconds_of
from moesim.cost.kernel_profiles import curve_index, load_kernels
from moesim.hardware.device import device
from moesim.hardware.profiles import load_accelerator

MILLION_S = 2.0
SCALAR_S = 20e-6

CHIP = chip(device(load_accelerator("h100-sxm")), 450e9)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp8_tensor", "fp8_block128"])
def test_a_million_products(benchmark: BenchmarkFixture, dtype: str) -> None:
    curve = curve_index(load_kernels("h100-sxm--trtllm"))["gemm", dtype, ""]
    generator = np.random.Generator(np.random.Philox(key=3))
    columns = {name: np.round(np.exp2(generator.uniform(4.0, 14.0, 1_000_000))) for name in "mnk"}
    found = benchmark(seconds_of, gemm.GEMM, curve, columns, CHIP)
    assert np.all(found > 0)
    assert benchmark.stats is not None
    assert benchmark.stats.stats.median < MILLION_S


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp8_tensor", "fp8_block128"])
def test_a_single_product(benchmark: BenchmarkFixture, dtype: str) -> None:
    curve = curve_index(load_kernels("h100-sxm--trtllm"))["gemm", dtype, ""]

    def hundred() -> float:
        """Products of different shapes: nothing may be remembered of the one before."""
        return sum(
            gemm.scalar_s(16.0 + i, 4096.0 + 16 * i, 7168.0, CHIP, dtype, curve) for i in range(100)
        )

    assert benchmark(hundred) > 0
    assert benchmark.stats is not None
    assert benchmark.stats.stats.min / 100 < SCALAR_S
