"""Turns every error into lines for people and an exit code; a traceback only on request."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from moesim.errors import MoesimError, ScenarioError

INTERNAL, USER, DOES_NOT_FIT, INTERRUPTED, READER_GONE = 1, 2, 3, 130, 141
"""Exit codes besides 0."""

_MOST_PROBLEMS = 50
_MOST_CHARACTERS = 2000

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no report.")]
Named = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped scenario.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the scenario: parallel.tp=8."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@contextmanager
def guard(*, debug: bool = False) -> Iterator[None]:
    """Run the body of a command; an exception ends it with a line on stderr and its exit code."""
    try:
        yield
        _flush()
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:  # the reader has seen enough, as `head` does: nothing to say
        _silence_stdout()
        raise typer.Exit(READER_GONE) from None
    except KeyboardInterrupt:
        _tell("moesim: interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            for line in _lines(error):
                _tell(line)
        with suppress(OSError):
            _flush()
            raise typer.Exit(exit_code(error)) from None
        _silence_stdout()
        raise typer.Exit(exit_code(error)) from None


def _flush() -> None:
    if sys.stdout is not None:  # None where the caller closed it
        sys.stdout.flush()


def exit_code(error: Exception) -> int:
    """Return 2 for the user's input and files, 1 for what is ours."""
    if isinstance(error, MoesimError):
        return error.exit_code
    return USER if isinstance(error, OSError) else INTERNAL


def one_line(text: str) -> str:
    """Return `text` without line breaks and control characters, and not endless."""
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return clean if len(clean) <= _MOST_CHARACTERS else clean[:_MOST_CHARACTERS] + " …"


def _lines(error: Exception) -> Iterator[str]:
    if isinstance(error, ScenarioError):
        for problem in error.problems[:_MOST_PROBLEMS]:
            yield one_line(f"{problem}" if problem.file else f"moesim: {problem}")
        if (more := len(error.problems) - _MOST_PROBLEMS) > 0:
            yield f"moesim: and {more:,} more problems"
    elif isinstance(error, MoesimError):
        yield one_line(f"moesim: {error}")
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        yield one_line(f"moesim: {where}{error.strerror or type(error).__name__}")
    else:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        yield one_line(f"moesim: internal error: {what}") + " (run again with --debug)"


def _tell(line: str) -> None:
    with suppress(OSError):
        typer.echo(line, err=True)


def _silence_stdout() -> None:
    """Send what is still buffered nowhere, so that the interpreter can end in peace."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
