"""Hash routing: a fixed map, whose loads are binned frequencies."""

import numpy as np
import pytest

from moesim.moe.choices import counts
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.hashed import balanced_map, hash_load, mixed_map, zipf
from moesim.moe.gating.table import choose


def _mix(x: int) -> int:
    """SplitMix64 in Python's integers."""
    mask = (1 << 64) - 1
    x = (x + 1) * 0x9E3779B97F4A7C15 & mask
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return x ^ (x >> 31)


def test_the_map_is_splitmix() -> None:
    # the first output of SplitMix64 seeded with 0 is published as e220a8397b1dcdaf
    assert _mix(0) == 0xE220A8397B1DCDAF
    assert mixed_map(50, 7).tolist() == [_mix(token) % 7 for token in range(50)]


def test_zipf_by_hand() -> None:
    # 1, 1/2, 1/3 over 11/6
    assert zipf(3) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert zipf(4, 0.0) == pytest.approx([0.25] * 4)


def test_load_is_the_frequency_of_what_is_mapped() -> None:
    frequencies = zipf(1000)
    expected = [0.0] * 16
    for token, share in enumerate(frequencies):
        expected[_mix(token) % 16] += share
    assert hash_load(Gate(experts=16), frequencies) == pytest.approx(expected)


def test_drawn_tokens_follow_the_load() -> None:
    gate, frequencies, tokens = Gate(experts=32), zipf(5000), 50_000
    found = choose("hash", gate, frequencies, tokens, generator=np.random.default_rng(1))
    load = hash_load(gate, frequencies)
    drawn = counts(found, 32, 1)[0] / tokens
    assert (abs(drawn - load) < 4 * (load * (1 - load) / tokens) ** 0.5).all()


def test_a_zipf_vocabulary_is_uneven_unless_binned() -> None:
    """With 32,000 ids the most frequent holds 9 %, more than a share of one in 16 experts."""
    frequencies = zipf(32_000)
    assert frequencies[0] == pytest.approx(1 / (np.log(32_000) + 0.5772), rel=1e-4)
    mixed = hash_load(Gate(experts=16), frequencies)
    binned = hash_load(Gate(experts=16, hash_map="balanced"), frequencies)
    assert mixed.max() > 1.5 / 16
    # the fullest bin holds the most frequent id alone; the rest are even
    assert binned.max() == pytest.approx(frequencies[0])
    assert np.sort(binned)[:-1] == pytest.approx(np.full(15, (1 - frequencies[0]) / 15), rel=1e-3)


def test_binning_by_hand() -> None:
    # 5 -> expert 0; 4 -> 1; 3 -> 1 (4 < 5); 3 -> 0; 1 -> 1 (7 < 8)
    assert balanced_map(np.array([5.0, 4.0, 3.0, 3.0, 1.0]), 2).tolist() == [0, 1, 1, 0, 1]
