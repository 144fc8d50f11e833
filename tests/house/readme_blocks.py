"""Turns the commands of a README into one shell script: `python readme_blocks.py README.md`.

Every fenced block marked `sh` is part of it and therefore runs in CI. `sh no-ci`, and any other
mark (`console`, `text`, …), leaves a block out.
"""

import re
import sys
from pathlib import Path

_BLOCK = re.compile(r"^```(?P<mark>[^\n`]*)\n(?P<body>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the bodies of the `sh` blocks; ValueError where the text has no such block."""
    blocks = [(m["mark"].split(), m["body"]) for m in _BLOCK.finditer(text)]
    shell = [(mark, body) for mark, body in blocks if mark[:1] == ["sh"]]
    if not shell:
        raise ValueError("the README has no fenced block marked sh: a reader has nothing to run")
    return [body for mark, body in shell if "no-ci" not in mark]


def script(text: str) -> str:
    """Return the shell script that runs the commands of a README and stops at the first failure."""
    return "set -euxo pipefail\n" + "\n".join(commands(text))


def _main() -> int:
    try:
        text = script(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except ValueError as error:
        sys.stderr.write(f"{sys.argv[1]}: {error}\n")
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
