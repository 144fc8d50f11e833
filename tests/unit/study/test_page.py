"""The report page: small enough, nothing fetched, every picture drawn in a real browser."""

import re
import subprocess
from pathlib import Path

import moesim
from tests.unit.study.scenarios import small

PICTURES = ("breakdown", "memory", "memory_timeline", "timeline", "routing")


def _page(folder: Path) -> str:
    return moesim.run(small(folder, "baseline: {equal: active_params}")).html()


def test_it_is_small_and_fetches_nothing(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert len(page.encode()) < 6e6
    own = page[: page.index("<script>")] + page[page.rindex("<main>") :]
    assert not re.search(r"(src|href)\s*=|@import|url\(", own)


def test_what_the_user_wrote_is_escaped(tmp_path: Path) -> None:
    page = moesim.run(small(tmp_path, "description: '<script>alert(1)</script> & more'\n")).html()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page


def test_every_picture_is_drawn_offline(tmp_path: Path, chromium: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(_page(tmp_path), encoding="utf-8")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--no-first-run", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=10000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in shown.stderr or "error" not in shown.stderr.lower().split("console")[1]
    for name in PICTURES:
        drawn = shown.stdout[shown.stdout.rindex(f'<div id="{name}"') :]
        assert 'class="main-svg"' in drawn[:20_000], name
