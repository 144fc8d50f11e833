"""Every house rule holds in this repository."""

from pathlib import Path

import pytest

from tests.house.rules import startup, tracked, walls
from tests.house.rules.table import NEED_COMMAND, NEED_GIT, RULES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", RULES)
def test_the_rule_holds(name: str) -> None:
    if name in NEED_GIT and tracked.files(ROOT) is None:
        pytest.skip("git or its repository is absent, so there is no list of tracked files")
    if name in NEED_COMMAND and not startup.has_command(ROOT):
        pytest.skip("moesim/__main__.py does not exist yet")
    found = RULES[name](ROOT)
    assert not found, f"{name}:\n" + "\n".join(found)


def test_every_exception_to_the_walls_is_needed_and_has_a_reason() -> None:
    beyond = {where for where, _ in walls.beyond(ROOT)}
    assert set(walls.EXCEPTIONS) <= beyond
    assert all(reason.strip() for reason in walls.EXCEPTIONS.values())
