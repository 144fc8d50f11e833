"""What each chunk holds where layers do not divide: the ends of the network take a place."""

from pathlib import Path

import pytest

from moesim.cost.pipeline import Chunk, equal_sizes
from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
from moesim.study.split import stage_chunks

PIPELINE = """
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 72}
training: {sequence_length: 512, global_batch: 72}
"""


def _outcome(folder: Path, parallel: str) -> Outcome:
    file = folder / "uneven.yaml"
    file.write_text(f"{PIPELINE}parallel: {parallel}\n", encoding="utf-8")
    return simulate(resolve(load_scenario(file)))


def _chunks(folder: Path, parallel: str) -> list[list[Chunk]]:
    return stage_chunks(_outcome(folder, parallel).run)


def test_the_ends_take_a_place_where_that_makes_it_equal() -> None:
    assert equal_sizes(128, 64) == (2,) * 64
    # Llama 3.1 405B: 126 layers on 16 stages of 8 chunks: embedding and logits stand alone
    assert equal_sizes(126, 128) == (0, *[1] * 126, 0)
    # Qwen3 235B: 94 layers on 32 chunks of 3, and one more for each end
    assert equal_sizes(94, 32) == (2, *[3] * 30, 2)
    # 61 layers on 31 chunks: only the logits take a place
    assert equal_sizes(61, 31) == (*[2] * 30, 1)
    assert equal_sizes(61, 16) is None
    assert equal_sizes(61, 1) == (61,)


def test_a_layout_says_what_lies_where(tmp_path: Path) -> None:
    # four chunks on two stages: chunk c of stage s is number 2 c + s
    found = _chunks(tmp_path, "{pp: 2, vpp: 2, ep: 2, layout: E|t*9||t*7L}")
    assert [[len(chunk.layers) for chunk in stage] for stage in found] == [[0, 0], [9, 7]]
    assert found[0][0].has_embedding
    assert found[1][1].has_logits
    assert [placed.number for placed in found[1][1].layers] == list(range(9, 16))


def test_an_empty_chunk_gathers_nothing_of_its_own(tmp_path: Path) -> None:
    cut = "pp: 2, vpp: 2, ep: 2, layout: E|t*9||t*7L"
    plain, sharded = _outcome(tmp_path, f"{{{cut}}}"), _outcome(tmp_path, f"{{{cut}, fsdp: 36}}")
    assert sharded.peak_bytes < plain.peak_bytes
    assert sharded.stages[0].forward[1].seconds == plain.stages[0].forward[1].seconds == 0.0


def test_16_layers_on_18_chunks_run(tmp_path: Path) -> None:
    chunks = _chunks(tmp_path, "{pp: 9, vpp: 2}")
    assert [len(stage[0].layers) for stage in chunks] == [0, *[1] * 8]
    assert [len(stage[1].layers) for stage in chunks] == [*[1] * 8, 0]


@pytest.mark.parametrize(
    ("parallel", "says"),
    [
        ("{pp: 2, layout: Ett|ttL}", "has 16 layers, but 4 t"),
        ("{pp: 2, layout: Et*8|t*8mL}", "has 0 MTP modules, but 1 m"),
        ("{pp: 2, layout: Et*8|t*4|t*4L}", "has 3 chunks"),
        ("{pp: 1, layout: Et*16L}", "needs pp above 1"),
        ("{pp: 2, layout: tL}", "begin with E"),
    ],
)
def test_a_layout_that_does_not_fit_says_why(tmp_path: Path, parallel: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        _chunks(tmp_path, parallel)
