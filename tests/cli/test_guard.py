"""Exceptions become lines and exit codes; interrupts, pipes and full disks end in peace."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import moesim.study.run
from moesim.cli.guard import exit_code, guard, one_line
from moesim.cli.main import app
from moesim.errors import (
    CalibrationError,
    ModelError,
    Problem,
    ProfileError,
    ScenarioError,
    SimulationError,
)

SCENARIO = "mixtral-8x7b-64xh100"
COMMAND = [sys.executable, "-m", "moesim"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def call(error: BaseException, *, debug: bool = False) -> Result:
    """Run a command whose body raises `error`."""
    inner = typer.Typer()

    @inner.command()
    def _command() -> None:
        with guard(debug=debug):
            raise error

    return CliRunner().invoke(inner, [])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ScenarioError([Problem("a.b", "no", "f.yaml", 2, 3)]), 2, "f.yaml:2:3: a.b: no"),
        (ScenarioError([Problem("", "no such name")]), 2, "moesim: no such name"),
        (ModelError("key x"), 2, "moesim: key x"),
        (ProfileError("lacks y"), 2, "moesim: lacks y"),
        (CalibrationError("noise"), 2, "moesim: noise"),
        (SimulationError("stage 3 waits"), 1, "moesim: stage 3 waits"),
        (FileNotFoundError(2, "No such file", "x/y"), 2, "moesim: x/y: No such file"),
        (OSError(28, "No space left on device"), 2, "moesim: No space left on device"),
        (KeyError("k"), 1, "moesim: internal error: KeyError: 'k' (run again with --debug)"),
        (
            ZeroDivisionError("by\nzero"),
            1,
            "moesim: internal error: ZeroDivisionError: by\\nzero (run again with --debug)",
        ),
        (MemoryError(), 1, "moesim: internal error: MemoryError (run again with --debug)"),
        (RecursionError("deep"), 1, "moesim: internal error: RecursionError: deep (run again"),
        (KeyboardInterrupt(), 130, "moesim: interrupted"),
    ],
)
def test_an_exception_is_one_line_and_a_code(error: BaseException, code: int, line: str) -> None:
    done = call(error)
    assert done.exit_code == code
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_every_problem_is_a_line() -> None:
    done = call(ScenarioError([Problem("a", "no", "f", 1, 1), Problem("b", "x\ny", "f", 2, 1)]))
    assert done.stderr == "f:1:1: a: no\nf:2:1: b: x\\ny\n"


@pytest.mark.parametrize("error", [KeyError("k"), ModelError("key x")])
def test_debug_shows_the_traceback_and_keeps_the_code(error: Exception) -> None:
    done = call(error, debug=True)
    assert done.exit_code == exit_code(error)
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert type(error).__name__ in done.stderr


def test_a_broken_pipe_ends_quietly() -> None:
    done = call(BrokenPipeError())
    assert (done.exit_code, done.output) == (141, "")


def test_lines_are_printable_and_not_endless() -> None:
    assert one_line("a\n\t\x00\x1b[1m\u2028é…") == "a\\n\\t\\x00\\x1b[1m\\u2028é…"
    assert len(one_line("x" * 10_000)) < 2100


def test_our_own_fault_in_a_run_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(scenario: object, progress: object = None) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(moesim.study.run, "run", fail)
    done = CliRunner().invoke(app, ["run", SCENARIO, "-q"])
    assert done.exit_code == 1
    assert done.stderr == "moesim: internal error: RuntimeError: oh (run again with --debug)\n"
    assert "Traceback" in CliRunner().invoke(app, ["run", SCENARIO, "-q", "--debug"]).stderr


def started(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_a_process_gives_the_same_lines_and_codes(tmp_path: Path) -> None:
    wrong = started("run", "none.yaml", folder=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "moesim: cannot read none.yaml: No such file or directory\n"
    debug = started("run", "none.yaml", "--debug", folder=tmp_path)
    assert debug.returncode == 2
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("run",), ("run", SCENARIO, "--no-such")])
def test_a_wrong_command_line_gives_code_2_without_a_traceback(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = started(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage: " in done.stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "explain"], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [("explain",), ("run", SCENARIO), ("models",)])
def test_a_full_disk_below_stdout_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env=ENVIRONMENT, stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "moesim: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_gives_130_and_one_line(tmp_path: Path) -> None:
    pipe = tmp_path / "slow.yaml"
    os.mkfifo(pipe)  # reading the scenario waits until somebody writes it
    process = subprocess.Popen(
        [*COMMAND, "run", "slow.yaml"], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with pipe.open("wb"):  # opens once the process reads
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "moesim: interrupted\n"


def test_a_terminal_that_shows_ascii_only_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", SCENARIO, "--set", "description=ünïcode"], cwd=tmp_path,
        capture_output=True, check=False, env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"MFU" in done.stdout
