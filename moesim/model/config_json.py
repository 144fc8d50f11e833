"""Reads a Hugging Face config.json: plain data only, no code is ever loaded or followed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from moesim.errors import ModelError, nearest
from moesim.model.architecture import Architecture
from moesim.model.consistency import check
from moesim.model.families import CLASSES, FAMILIES, Family
from moesim.model.families.config import Config
from moesim.model.families.parts import weight_dtype

MAX_BYTES = 16 * 2**20
"""Quantised copies carry long lists of layers; no honest config.json is larger."""


def read_config(path: Path) -> Architecture:
    """Return the architecture in the config.json `path`, or in the directory `path`.

    Raises ModelError that names the file, and what is wrong there.
    """
    try:
        file = path / "config.json" if path.is_dir() else path
    except OSError as error:  # a name that is too long, say
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    name = file.resolve().parent.name if file.name == "config.json" else file.stem
    return architecture_from(_parsed(file), name or "model", str(file))


def architecture_from(config: Mapping[str, Any], name: str, source: str) -> Architecture:
    """Return the architecture that the parsed config.json `config` describes.

    Raises ModelError naming model_type and key; a missing size is never filled from a default,
    and `auto_map` (the names of Python files to run) is not looked at.
    """
    if not isinstance(config, Mapping):
        raise ModelError(f"{source}: a config.json must be an object")
    model_type = _model_type(config, source)
    whole = Config(config, model_type, name, source)
    architecture = _family(whole)(whole)
    dtype = weight_dtype(whole, whole.language_model())
    check(architecture, model_type)
    return replace(architecture, weight_dtype=dtype)


def _family(config: Config) -> Family:
    for word in config.words("architectures"):
        if word in CLASSES:
            return FAMILIES[CLASSES[word]]
    if config.model_type in FAMILIES:
        return FAMILIES[config.model_type]
    known = ", ".join(FAMILIES)
    hint = nearest(config.model_type, FAMILIES)
    raise ModelError(
        f"{config.source}: model_type '{config.model_type}' is not modelled.{hint} Known: {known}."
    )


def _model_type(config: Mapping[str, Any], source: str) -> str:
    value = config.get("model_type")
    if not isinstance(value, str) or not value:
        raise ModelError(f"{source}: key 'model_type' must be text")
    return value[:100]


def _parsed(file: Path) -> Mapping[str, Any]:
    raw = _read(file)
    try:
        data = json.loads(raw, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"{file}:{error.lineno}:{error.colno}"
        raise ModelError(f"{where}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{file}: not valid JSON: the file is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{file}: a config.json must be an object")
    return data


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ModelError(f"cannot read {file}: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise ModelError(f"{file}: larger than 16 MiB; this is not a config.json")
    return raw


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")
