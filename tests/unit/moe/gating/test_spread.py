"""From a loss weight to the spread of the load: printed rows, and refusal beyond them."""

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from moesim.errors import ModelError
from moesim.moe import drops
from moesim.moe.gating.spread import SHAZEER_TABLE_6, SPREADS, deepseek_v3, shazeer, switch
from tests.shared_files import shared


def test_table_6_is_what_is_published() -> None:
    data: Any = YAML(typ="safe").load(shared("published/moe-semantics.yaml"))
    (table,) = (row for row in data["load_balance_published"] if row["id"] == "shazeer_t6")
    assert len(table["rows"]) == len(SHAZEER_TABLE_6)
    for row in table["rows"]:
        found = shazeer(row["w_imp"], row["w_load"])
        assert found.cv == row["cv_load"]
        assert found.cv_importance == row["cv_imp"]
        assert found.imbalance == pytest.approx(row["max_over_mean"])
        assert not found.is_bound


def test_printed_rows() -> None:
    # Shazeer 2017, table 6: 17.80, 1.47, 1.15, 1.14, 1.37, 1.07
    found = [shazeer(row.importance, row.load).imbalance for row in SHAZEER_TABLE_6]
    assert found == pytest.approx([17.80, 1.47, 1.15, 1.14, 1.37, 1.07])


def test_between_rows_on_a_line_by_hand() -> None:
    # half way from 0.01 to 0.1 in logarithms: geometric means of the CVs and of max / mean - 1
    middle = shazeer(0.1**1.5, 0.1**1.5)
    assert middle.cv == pytest.approx((0.11 * 0.05) ** 0.5)
    assert middle.imbalance == pytest.approx(1 + (0.37 * 0.14) ** 0.5)
    # half way from importance alone to both
    assert shazeer(0.15, 0.05).cv == pytest.approx((0.17 * 0.05) ** 0.5)


def test_stronger_equal_weights_never_spread_the_load_more() -> None:
    found = [shazeer(w, w).cv for w in (0.01, 0.02, 0.05, 0.1, 0.3, 0.9, 1.0)]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("importance", "load"),
    [(0.005, 0.005), (2.0, 2.0), (0.1, 0.2), (0.0, 0.1), (0.3, -0.1), (1.0, 0.0)],
)
def test_beyond_the_table_is_refused(importance: float, load: float) -> None:
    with pytest.raises(ModelError, match=re.escape("table 6 of Shazeer et al. 2017 covers")):
        shazeer(importance, load)


@pytest.mark.parametrize(("experts", "tokens"), [(8, 4096), (64, 65536), (128, 8192)])
def test_switch_bound_is_where_one_percent_drops(experts: int, tokens: int) -> None:
    found = switch(1e-2, experts, tokens)
    slots = -(-5 * tokens // (4 * experts))
    dropped = drops.dirichlet(tokens, experts, 1, slots, drops.concentration_for(experts, found.cv))
    assert dropped == pytest.approx(0.01, rel=0.02)
    assert found.is_bound


def test_switch_bound_lies_between_tabled_drops() -> None:
    # 64 experts, 65,536 tokens, CF 1.25: CV 0.0992 drops 0.05 %, CV 0.2218 drops 1.85 %
    assert 0.0992 < switch(1e-2, 64, 65536).cv < 0.2218


def test_switch_where_chance_alone_drops_more() -> None:
    # 2048 experts, groups of 4096: equal shares drop 10.9 % at CF 1.25
    assert switch(1e-2, 2048, 4096).cv == 0.0


def test_switch_reports_one_coefficient_only() -> None:
    with pytest.raises(ModelError, match="1e-2 only"):
        switch(1e-3, 64, 4096)


def test_every_mapping_names_its_source() -> None:
    assert set(SPREADS) == {"shazeer", "switch", "deepseek_v3"}
    for made in (shazeer(0.1, 0.1), switch(0.01, 8, 4096), deepseek_v3()):
        assert made.source
    assert deepseek_v3().cv == 0.0
