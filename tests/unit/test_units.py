"""Quantities as people write them, against their values in base units worked out by hand."""

import pytest

from moesim import units

# 1 B = 8 b; k M G T P E are 10^3 … 10^18; Ki Mi Gi Ti Pi are 2^10 … 2^50.
SPELLINGS = [
    ("4 /s", "per_s", 4.0),
    ("90 /min", "per_s", 1.5),
    ("7200 /h", "per_s", 2.0),
    ("0 B", "bytes", 0.0),
    ("1 B", "bytes", 1.0),
    ("8 b", "bytes", 1.0),
    ("8 bit", "bytes", 1.0),
    ("80 GiB", "bytes", 85_899_345_920.0),
    ("80GiB", "bytes", 85_899_345_920.0),
    ("  80   GiB  ", "bytes", 85_899_345_920.0),
    ("80 GB", "bytes", 80_000_000_000.0),
    ("80 Gb", "bytes", 10_000_000_000.0),
    ("80 Gib", "bytes", 10_737_418_240.0),
    ("1 kB", "bytes", 1000.0),
    ("1 KiB", "bytes", 1024.0),
    ("1 MiB", "bytes", 1_048_576.0),
    ("1 TiB", "bytes", 1_099_511_627_776.0),
    ("1 PiB", "bytes", 1_125_899_906_842_624.0),
    ("1.5 EB", "bytes", 1.5e18),
    ("+2 MB", "bytes", 2_000_000.0),
    (".5 MB", "bytes", 500_000.0),
    ("5. MB", "bytes", 5_000_000.0),
    ("1e3 MB", "bytes", 1e9),
    ("1E+3 MB", "bytes", 1e9),
    ("25e-1 kB", "bytes", 2500.0),
    ("1 B/s", "bytes_per_s", 1.0),
    ("3.35 TB/s", "bytes_per_s", 3.35e12),
    ("400 Gb/s", "bytes_per_s", 50e9),
    ("400 Gbps", "bytes_per_s", 50e9),
    ("400 Gbit/s", "bytes_per_s", 50e9),
    ("400 Gbitps", "bytes_per_s", 50e9),
    ("400 GB/s", "bytes_per_s", 400e9),
    ("400 GBps", "bytes_per_s", 400e9),
    ("400 GiB/s", "bytes_per_s", 429_496_729_600.0),
    ("100 Mb/s", "bytes_per_s", 12.5e6),
    ("8 kb/s", "bytes_per_s", 1000.0),
    ("1 s", "s", 1.0),
    ("9 us", "s", 9e-6),
    ("9 µs", "s", 9e-6),  # micro sign
    ("9 μs", "s", 9e-6),  # Greek mu
    ("250 ns", "s", 250e-9),
    ("3 ms", "s", 3e-3),
    ("2 min", "s", 120.0),
    ("2 h", "s", 7200.0),
    ("1 d", "s", 86_400.0),
    ("1 day", "s", 86_400.0),
    ("3 days", "s", 259_200.0),
    ("1 TFLOP", "flop", 1e12),
    ("2 FLOP", "flop", 2.0),
    ("989 TFLOP/s", "flop_per_s", 989e12),
    ("989 TFLOPS", "flop_per_s", 989e12),
    ("989 TFLOPs/s", "flop_per_s", 989e12),
    ("1.2 PFLOP/s", "flop_per_s", 1.2e15),
    ("700 W", "w", 700.0),
    ("1.2 kW", "w", 1200.0),
    ("120 MW", "w", 120e6),
    ("1 kJ", "j", 1000.0),
    ("1 Wh", "j", 3600.0),
    ("1 kWh", "j", 3.6e6),
    ("1000 USD", "usd", 1000.0),
    ("5.6 MUSD", "usd", 5.6e6),
    ("2.95 USD/h", "usd_per_h", 2.95),
    ("2 Ttokens", "tokens", 2e12),
    ("14.8 Ttokens", "tokens", 14.8e12),
    ("300 Gtokens", "tokens", 300e9),
    ("4096 tokens", "tokens", 4096.0),
    ("2 Mtokens/s", "tokens_per_s", 2e6),
]

WRONG = [
    (80, "bytes", "write a number with its unit, for example '80 GiB'"),
    (3.5, "bytes", "write a number with its unit"),
    (None, "s", "for example '9 us'"),
    (True, "s", "for example '9 us'"),
    ("80", "bytes", "'80' lacks its unit; write for example '80 GiB'"),
    ("GiB", "bytes", "'GiB' is not a number with a unit"),
    ("", "bytes", "is not a number with a unit"),
    ("eighty GiB", "bytes", "is not a number with a unit"),
    ("1,000 GB", "bytes", "unknown unit ',000 GB'"),
    ("80 gb", "bytes", "unknown unit 'gb'"),
    ("80 KB", "bytes", "K alone is ambiguous"),
    ("80 GB", "bytes_per_s", "unknown unit 'GB'; write for example '3.35 TB/s'"),
    ("80 GB/s", "bytes", "unknown unit 'GB/s'"),
    ("1 mB", "bytes", "unknown unit 'mB'"),
    ("5 m", "s", "unknown unit 'm'"),
    ("5 EUR/h", "usd_per_h", "unknown unit 'EUR/h'; write for example '2.95 USD/h'"),
    ("1e309 B", "bytes", "'1e309 B' is too large"),
    ("nan B", "bytes", "is not a number with a unit"),
    ("inf B", "bytes", "is not a number with a unit"),
    ("0x10 B", "bytes", "unknown unit 'x10 B'"),
    ("1 GiB/s/s", "bytes_per_s", "unknown unit"),
    ("1 Kitokens", "tokens", "unknown unit 'Kitokens'"),
]


@pytest.mark.parametrize(("text", "dimension", "value"), SPELLINGS)
def test_a_spelling_means_its_value_in_base_units(text: str, dimension: str, value: float) -> None:
    assert units.parse(text, dimension) == pytest.approx(value, rel=1e-15)


def test_there_are_sixty_spellings_of_every_dimension() -> None:
    assert len(SPELLINGS) >= 60
    assert {dimension for _, dimension, _ in SPELLINGS} == set(units.DIMENSIONS)


@pytest.mark.parametrize(("text", "dimension", "says"), WRONG)
def test_what_is_no_quantity_is_an_error_that_shows_the_right_form(
    text: object, dimension: str, says: str
) -> None:
    with pytest.raises(ValueError) as error:
        units.parse(text, dimension)
    assert says in str(error.value)


def test_bits_are_eighths_of_bytes_in_every_prefix() -> None:
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        assert units.parse(f"8 {prefix}b/s", "bytes_per_s") == units.parse(
            f"1 {prefix}B/s", "bytes_per_s"
        )


@pytest.mark.parametrize("dimension", units.DIMENSIONS)
def test_examples_in_messages_are_right(dimension: str) -> None:
    assert units.parse(units.DIMENSIONS[dimension].example, dimension) > 0


@pytest.mark.parametrize("value", [0.0, 1.0, 1 / 3, 3.35e12, 8.5899345920e10, 1e-9, 1.7e308])
@pytest.mark.parametrize("dimension", units.DIMENSIONS)
def test_exact_text_gives_the_same_number_back(value: float, dimension: str) -> None:
    assert units.parse(units.exact(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (0.0, "s", "0 s"),
        (9e-6, "s", "9.00 us"),
        (1.5e-9, "s", "1.50 ns"),
        (0.25, "s", "250 ms"),
        (59.0, "s", "59.0 s"),
        (3 * 3600.0, "s", "3.00 h"),
        (10 * 86400.0, "s", "10.0 days"),
        (3.35e12, "bytes_per_s", "3.35 TB/s"),
        (989.4e12, "flop_per_s", "989 TFLOP/s"),
        (999.6e12, "flop_per_s", "1.00 PFLOP/s"),
        (2.951, "usd_per_h", "2.95 USD/h"),
        (700.0, "w", "700 W"),
    ],
)
def test_people_read_three_digits_and_a_prefix(value: float, dimension: str, text: str) -> None:
    assert units.readable(value, dimension) == text
