"""Devices built from profiles: spot values against datasheets, and figures that are missing."""

import pytest

from moesim.errors import ProfileError
from moesim.hardware import device as devices
from moesim.hardware.device import Device, device, peak
from moesim.hardware.profiles import accelerator_names, load_accelerator


def _device(name: str) -> Device:
    return device(load_accelerator(name))


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [
        # NVIDIA A100 datasheet (2021): BF16 Tensor Core 312 TFLOPS (624 with sparsity).
        ("a100-sxm-80gb", "bf16", 312),
        # NVIDIA H100 datasheet, SXM5: FP8 3958 TFLOPS with sparsity, so 1979 dense.
        ("h100-sxm", "fp8", 1978.9),
        ("h100-sxm", "bf16", 989.4),
        # NVIDIA H100 NVL: BF16 1671 TFLOPS with sparsity.
        ("h100-nvl", "bf16", 1671 / 2),
        # NVIDIA V100 SXM2: 125 TFLOPS in its fp16 matrix units.
        ("v100-sxm-32gb", "fp16", 125),
        # AMD Instinct MI300X data sheet: 1307.4 TFLOPS BF16, 2614.9 FP8.
        ("mi300x", "bf16", 1307.4),
        ("mi300x", "fp8", 2614.9),
        # NVIDIA GB300 NVL72: 1080 PFLOPS dense FP4 in 72 GPUs.
        ("gb300", "nvfp4", 1080e3 / 72),
        # Google Cloud TPU documentation: v5p 459, v6e 918, TPU7x 2307 TFLOPs per chip.
        ("tpu-v5p", "bf16", 459),
        ("tpu-v6e", "bf16", 918),
        ("tpu-v7x", "bf16", 2307),
    ],
)
def test_peaks_are_dense_datasheet_rates(name: str, dtype: str, tflops: float) -> None:
    assert peak(_device(name), dtype) == pytest.approx(tflops * 1e12, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "gigabytes", "bandwidth"),
    [
        ("a100-sxm-80gb", 85.9, 2039e9),  # 81920 MiB in nvidia-smi; NVIDIA A100 datasheet
        ("a100-sxm-40gb", 42.9, 1555e9),  # NVIDIA A100 whitepaper
        ("h100-sxm", 85.9, 3350e9),  # NVIDIA H100 datasheet
        ("h200", 151.4, 4800e9),  # NVIDIA H200 datasheet; 143771 MiB in nvidia-smi
        ("gb200", 198.7, 8000e9),  # 198674743296 bytes in nvidia-smi
        ("mi250x", 137.4, 3276.8e9),  # AMD Instinct MI250X data sheet
        ("tpu-v3", 34.4, 900e9),  # Google Cloud TPU documentation
    ],
)
def test_memory(name: str, gigabytes: float, bandwidth: float) -> None:
    built = _device(name)
    assert built.memory_capacity_bytes == pytest.approx(gigabytes * 1e9, rel=3e-3)
    assert built.memory_bandwidth_bytes_per_s == pytest.approx(bandwidth)


def test_optional_figures_of_the_h100() -> None:
    # H100 architecture whitepaper: 132 SMs, 700 W, PCIe 5 x16 (63 GB/s after coding).
    built = _device("h100-sxm")
    assert devices.compute_units(built) == 132
    assert devices.tdp_w(built) == 700
    assert devices.host_link_bytes_per_s(built) == pytest.approx(63e9)
    assert devices.price_usd_per_device_hour(built) == pytest.approx(2.95)


def test_a_missing_peak_names_profile_figure_and_what_to_write() -> None:
    with pytest.raises(ProfileError) as caught:
        peak(_device("a100-sxm-80gb"), "fp8")
    text = str(caught.value)
    assert "'a100-sxm-80gb' has no peak for fp8" in text
    assert "fp32, tf32, fp16, bf16, int8" in text
    assert "below peak: 'fp8: {value: <number> TFLOP/s, source: " in text


def test_a_missing_figure_names_profile_and_key() -> None:
    with pytest.raises(ProfileError, match=r"'tpu-v7x' lacks compute_units.*compute_units: "):
        devices.compute_units(_device("tpu-v7x"))
    with pytest.raises(ProfileError, match=r"'h20' lacks price.*'price: \{value: 2\.95 USD/h"):
        devices.price_usd_per_device_hour(_device("h20"))


def test_figures_keep_their_provenance() -> None:
    figures = {figure.name: figure for figure in _device("h100-sxm").figures}
    assert figures["peak.bf16"].subject == "accelerator h100-sxm"
    assert figures["peak.bf16"].text == "989 TFLOP/s"
    assert figures["peak.bf16"].kind == "datasheet"
    assert "TFLOPS comparison" in figures["peak.bf16"].source
    assert "2^30" in figures["memory.capacity"].note
    assert figures["compute_units"].text == "132"


@pytest.mark.parametrize("name", accelerator_names())
def test_rates_are_plausible(name: str) -> None:
    """Narrower formats are never slower, and no file mixes GB with TB or G with T."""
    built = _device(name)
    rates = dict(built.peak_flop_per_s)
    order = [rates[d] for d in ("fp32", "tf32", "fp16", "fp8", "fp4", "nvfp4") if d in rates]
    assert order == sorted(order)
    assert 50e12 <= max(rates.values()) <= 2e16
    assert 10e9 <= built.memory_capacity_bytes <= 400e9
    assert 500e9 <= built.memory_bandwidth_bytes_per_s <= 10e12
    assert built.tdp_w is None or 150 <= built.tdp_w <= 1500
    # FLOP per byte at the ridge: from 80 (V100, 139) to 1150 (GB300 at fp4) for this generation.
    assert 30 <= max(rates.values()) / built.memory_bandwidth_bytes_per_s <= 2000
