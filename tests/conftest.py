"""What all tests share: markers by path, one hypothesis profile, and the browser."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

LANES = ("unit", "laws", "house", "cli")
"""Folders of tests/; each test carries the name of its folder as a marker."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers that come from the folders."""
    for lane in LANES:
        config.addinivalue_line("markers", f"{lane}: a test in tests/{lane}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder, and with `browser` where it uses one."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in LANES:
            item.add_marker(folder)
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to look at reports with; the test is skipped where there is none."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
