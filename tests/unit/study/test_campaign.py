"""A scenario's campaign: summary, tables, terminal and page, and what is an error."""

import io
from pathlib import Path

import pytest
from rich.console import Console

import moesim
from moesim.errors import ScenarioError
from moesim.study.report.terminal import print_result
from tests.unit.study.scenarios import small

CAMPAIGN = """
campaign:
  device_mtbf: 1000 d
  checkpoint: {every_steps: 500, size: 1 TB, storage_bandwidth: 20 GB/s}
  restart: {detect: 5 min, replace: 5 min}
  seeds: 5
"""
TOKENS = "training.tokens=100 Gtokens"
RARE = "campaign.device_mtbf=1e12 d"


def test_without_failures_it_is_training_and_checkpoints(tmp_path: Path) -> None:
    """tokens / (tokens/s), in whole steps, and 1 TB over 20 GB/s for each started 500 of them."""
    summary = moesim.run(small(tmp_path, CAMPAIGN, TOKENS, RARE)).summary()
    metrics, found = summary["model"]["metrics"], summary["campaign"]
    steps = -(-100e9 // (16 * 1024))
    assert found["steps"] == steps
    days = (steps * metrics["step_s"] + -(-steps // 500) * 50) / 86400
    assert found["wall_days"]["p5"] == pytest.approx(days)
    assert found["wall_days"]["p95"] == pytest.approx(days)
    assert found["uninterrupted_days"] == pytest.approx(metrics["training_days"], rel=1e-5)
    assert found["usd"]["mean"] == pytest.approx(days * 24 * 8 * 2)
    assert found["goodput_fraction"]["p50"] == pytest.approx(found["uninterrupted_days"] / days)


def test_a_checkpoint_holds_weights_and_optimizer_states(tmp_path: Path) -> None:
    """14 bytes per parameter: bf16 weights, fp32 master weights and two fp32 moments."""
    more = CAMPAIGN.replace("size: 1 TB, ", "")
    summary = moesim.run(small(tmp_path, more, TOKENS, RARE)).summary()
    params = summary["model"]["total_params"]
    assert summary["campaign"]["checkpoint_bytes"] == pytest.approx(14 * params)
    assert summary["campaign"]["checkpoint_write_s"] == pytest.approx(14 * params / 20e9)


def test_spare_nodes_are_paid_for(tmp_path: Path) -> None:
    settings = ("campaign.spare_nodes=1", "campaign.repair=1 d")
    found = moesim.run(small(tmp_path, CAMPAIGN, TOKENS, RARE, *settings)).summary()["campaign"]
    assert found["usd"]["p50"] == pytest.approx(found["wall_days"]["p50"] * 24 * (8 + 8) * 2)


def test_a_batch_ramp_takes_the_steps_of_each_batch(tmp_path: Path) -> None:
    ramp = "campaign.batch_ramp=[{until_tokens: 10 Gtokens, global_batch: 8}]"
    scenario = small(tmp_path, CAMPAIGN, TOKENS, RARE, ramp)
    found = moesim.run(scenario).summary()["campaign"]
    first = -(-10e9 // (8 * 1024))
    second = -(-(100e9 - first * 8 * 1024) // (16 * 1024))
    assert found["steps"] == first + second
    listed = [(one["steps"], one["global_batch"]) for one in found["phases"]]
    assert listed == [(first, 8), (second, 16)]


def test_it_is_told_in_terminal_page_tables_and_pictures(tmp_path: Path) -> None:
    result = moesim.run(small(tmp_path, CAMPAIGN, TOKENS))
    console = Console(width=100, record=True, file=io.StringIO(), color_system=None)
    print_result(result, console)
    said = console.export_text()
    assert "The whole campaign" in said
    assert "training done again" in said
    page = result.html()
    assert 'id="campaign_days"' in page
    assert 'id="campaign_time"' in page
    assert {"campaign_days", "campaign_time"} < set(result.figures)
    assert len(result.tables()["campaign"]) == 5
    shares = result.summary()["campaign"]["shares"]
    assert sum(shares.values()) == pytest.approx(1)


def test_without_a_campaign_nothing_is_said_of_one(tmp_path: Path) -> None:
    result = moesim.run(small(tmp_path))
    assert result.summary()["campaign"] is None
    assert "campaign" not in result.tables()
    assert "campaign_days" not in result.html()


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ((), "campaign", "training.tokens"),
        ((TOKENS, "campaign.device_mtbf=1 min"), "campaign.device_mtbf", "no end at all"),
        (
            (
                TOKENS,
                "campaign.device_mtbf=1 d",
                "campaign.checkpoint.mode=async",
                "campaign.checkpoint.stall=1 s",
                "campaign.checkpoint.storage_bandwidth=5 MB/s",
            ),
            "campaign.device_mtbf",
            "no end at all",
        ),
        ((TOKENS, "campaign.device_mtbf=0 s"), "campaign", "longer than 0 s"),
        ((TOKENS, "campaign.checkpoint.every=1 h"), "campaign.checkpoint", "exactly one"),
        ((TOKENS, "campaign.checkpoint.every_steps=null"), "campaign.checkpoint", "exactly one"),
        ((TOKENS, "campaign.checkpoint.stall=1 s"), "campaign.checkpoint", "mode async"),
        ((TOKENS, "campaign.checkpoint.mode=async"), "campaign.checkpoint", "needs stall"),
        (
            (TOKENS, "campaign.checkpoint.storage_bandwidth=0 B/s"),
            "campaign.checkpoint",
            "above zero",
        ),
        ((TOKENS, "campaign.spare_nodes=2"), "campaign", "repair"),
        (
            (TOKENS, "campaign.checkpoint.every_steps=1"),
            "campaign.checkpoint",
            "save less often",
        ),
        (
            (TOKENS, "campaign.batch_ramp=[{until_tokens: 1 Ttokens, global_batch: 8}]"),
            "campaign.batch_ramp.0.until_tokens",
            "below training.tokens",
        ),
        (
            (TOKENS, "campaign.batch_ramp=[{until_tokens: 1 Gtokens, global_batch: 7}]"),
            "campaign.batch_ramp.0.global_batch",
            "multiple of",
        ),
        (
            (
                TOKENS,
                "campaign.batch_ramp=[{until_tokens: 2 Gtokens, global_batch: 8}, "
                "{until_tokens: 1 Gtokens, global_batch: 8}]",
            ),
            "campaign",
            "grow",
        ),
    ],
)
def test_senseless_campaigns_are_errors(
    tmp_path: Path, settings: tuple[str, ...], key: str, said: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        moesim.run(small(tmp_path, CAMPAIGN, *settings))
    (problem,) = caught.value.problems
    assert problem.path == key
    assert said in problem.message


def test_copies_that_are_written_too_slowly_are_told(tmp_path: Path) -> None:
    """1 TB over 1 GB/s is 1000 s; ten minutes between copies are too few, half an hour is not."""
    more = CAMPAIGN.replace("every_steps: 500", "every: 10 min, mode: async, stall: 1 s")
    more = more.replace("20 GB/s", "1 GB/s")
    late = moesim.run(small(tmp_path, more, TOKENS))
    said = "Training waits for checkpoints: one is due every 600 s, but writing it takes 1,000 s."
    assert said in late.html()
    assert late.summary()["campaign"]["young_interval_s"] >= 1000
    other = moesim.run(small(tmp_path, more, TOKENS, "campaign.checkpoint.every=30 min"))
    assert "Training waits for checkpoints" not in other.html()
