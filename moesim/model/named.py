"""The models that come with moesim, by name, and any model by name or path."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from moesim.errors import ModelError, Problem, ScenarioError, nearest
from moesim.model.architecture import Architecture
from moesim.model.config_json import read_config
from moesim.model.from_spec import architecture_from_spec
from moesim.spec.model import ModelSpec
from moesim.spec.shipped import shipped_names
from moesim.spec.validate import load

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "deepseek-coder-v2-lite": "deepseek-v2-lite",
        "deepseek-r1": "deepseek-v3",
        "gpt-3": "gpt3-175b",
        "gpt3": "gpt3-175b",
        "grok": "grok-1",
        "llama-3-70b": "llama-3.1-70b",
        "llama-3-8b": "llama-3.1-8b",
        "llama2-70b": "llama-2-70b",
        "llama2-7b": "llama-2-7b",
        "llama3-70b": "llama-3.1-70b",
        "llama3-8b": "llama-3.1-8b",
        "llama3.1-405b": "llama-3.1-405b",
        "llama3.1-70b": "llama-3.1-70b",
        "llama3.1-8b": "llama-3.1-8b",
        "mixtral": "mixtral-8x7b",
        "nllb-200-moe": "nllb-moe-54b",
        "olmoe": "olmoe-1b-7b",
        "snowflake-arctic": "arctic",
    }
)
"""Other names of the same networks; Llama 3 and 3.1 differ in training, not in shape."""


def named_models() -> list[str]:
    """Return the names of the models that come with moesim, sorted, without aliases."""
    return shipped_names(_catalogue())


def load_named(name: str) -> Architecture:
    """Return the model called `name`; case, spaces and underscores do not matter.

    Raises ScenarioError with the nearest known name.
    """
    names = named_models()
    found = _canonical(name, names)
    if found is None:
        hint = nearest(_plain(name), [*names, *ALIASES])
        message = f"unknown model '{name[:100]}'.{hint} {len(names)} are known by name."
        raise ScenarioError([Problem("", message)])
    return _from_yaml(_catalogue() / f"{found}.yaml")


def load_model(name_or_path: str | Path) -> Architecture:
    """Return a model by its name, or from a config.json (or its directory), or from moesim's YAML.

    Names go first: write ./NAME for a directory that is called like a model.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and _canonical(text, named_models()) is not None:
        return load_named(text)
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path)
    if path.suffix == ".json" or (text.strip() and _is_directory(path)):
        return read_config(path)
    if isinstance(name_or_path, Path) or "/" in text or _is_file(path):
        raise ModelError(
            f"{text}: a model file is a config.json, a directory with one, or a .yaml file"
        )
    return load_named(text)


def _catalogue() -> Path:
    return Path(__file__).resolve().parent / "catalogue"


def _from_yaml(path: Path) -> Architecture:
    return architecture_from_spec(load(ModelSpec, path))


def _plain(name: str) -> str:
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


def _canonical(name: str, names: list[str]) -> str | None:
    plain = _plain(name)
    plain = ALIASES.get(plain, plain)
    return plain if plain in names else None


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or with a null byte: not a path at all
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
