"""H8: what `moesim.__all__` promises is what the package has, and each of it is documented."""

import json
import os
import subprocess
import sys
from pathlib import Path

_PROBE = """
import inspect, json, types
import moesim

def is_module(name):
    return isinstance(getattr(moesim, name), types.ModuleType)

promised = list(getattr(moesim, "__all__", []))
public = {n for n in dir(moesim) if not n.startswith("_") and not is_module(n)}
out = [f"{name} is public but not in __all__" for name in sorted(public - set(promised))]
out += [f"{name} stands in __all__ twice" for name in promised if promised.count(name) > 1]
for name in promised:
    value = getattr(moesim, name, None)
    documented = (value.__doc__ or "").strip() if callable(value) else "a constant"
    if not hasattr(moesim, name):
        out.append(f"{name} is in __all__ but does not exist")
    elif not documented or documented.startswith(f"{name}("):
        out.append(f"{name} is in __all__ but has no docstring")
print(json.dumps(out))
"""


def violations(root: Path) -> list[str]:
    """Return differences between `moesim.__all__` and the package, seen by a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return [f"moesim/__init__.py: cannot be imported: {done.stderr.strip()}"]
    return [f"moesim/__init__.py: {what}" for what in json.loads(done.stdout)]
