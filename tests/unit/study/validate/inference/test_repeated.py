"""Prompts that a load generator sends round and round."""

from typing import Any

import pytest

from moesim.spec.cases import Case
from moesim.study.validate.inference.asked import asked_of
from moesim.study.validate.inference.repeated import beginnings
from moesim.study.validate.inference.words import Said
from moesim.study.validate.record import Record
from moesim.study.validate.run import records_of
from moesim.study.validate.skipped import SkippedError
from tests.unit.study.validate.inference.test_any_words import CASE, no_file

CACHING = {**CASE["engine"], "flags": "max_num_seqs 128, chunked prefill and prefix caching on"}
SHARED = {
    "isl": 547, "osl": 248, "arrival": "open_loop_constant", "stage_seconds": 600,
    "shared_system_prompts": "9 shared system prompts x 5 users", "prefix_tokens": 100,
}  # fmt: skip


def said(**words: Any) -> Said:
    row = {"rate_rps": 8}
    return Said(Case("made-up", "serving_curve", {**CASE, "workload": SHARED, **words}), row)


def test_users_have_prompts_of_their_own_behind_a_common_beginning() -> None:
    found = beginnings(said(engine=CACHING), [547] * 100)
    assert found is not None
    assert len(found[0]) == 34  # 34 blocks of 16 are 544 of 547 tokens
    assert found[0] == found[45] == found[90]  # 9 x 5 prompts, then the first again
    assert found[0][:6] == found[9][:6]  # 6 blocks are 96 of 100 tokens that nine prompts on share
    assert not set(found[0][6:]) & set(found[9][6:])
    assert not set(found[0]) & set(found[1])
    assert len({one for ids in found for one in ids}) == 9 * 6 + 45 * 28


@pytest.mark.parametrize("words", ["two by two", "9", "", "0 x 5"])
def test_other_words_repeat_nothing(words: str) -> None:
    workload = {**SHARED, "shared_system_prompts": words}
    assert beginnings(said(engine=CACHING, workload=workload), [547]) is None


def test_without_a_prefix_cache_nothing_is_found() -> None:
    assert beginnings(said(), [547]) is None
    assert asked_of(said(), 1).requests.prefix is None


def test_more_ids_than_can_be_kept_are_refused() -> None:
    workload = {**SHARED, "shared_system_prompts": "1000 x 1000"}
    with pytest.raises(SkippedError, match="blocks"):
        beginnings(said(engine=CACHING, workload=workload), [10**6] * 1000)


def ttft_ms(**words: Any) -> list[Record]:
    table = {"columns": ["rate_rps", "ttft_mean_ms", "ttft_p99_ms"], "rows": [[8, 50, 50]]}
    words = {"workload": SHARED, "measured": table, **words}
    return records_of(Case("made-up", "serving_curve", {**CASE, **words}), no_file())


def test_found_prompts_bring_the_first_token_sooner_but_the_first_few() -> None:
    # 45 of 4800 prompts are new, 0.94 %: up to the 99th percentile all are found.
    computed, found = ttft_ms(), ttft_ms(engine=CACHING)
    for before, after in zip(computed, found, strict=True):
        assert before.predicted is not None
        assert after.predicted is not None
        assert after.predicted < before.predicted
