"""Checks of a card's metadata, and which names are ids on the Hub."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..errors import InputError
from ..utils.predicates import is_number

LOCAL_FOLDER = "path/to/this/folder"  # what the code of a card loads, until it is on the Hub
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")  # of the Hub


def validate_metadata(content: Mapping[str, Any]) -> None:
    """Checks what the Hub's client does not: it would send NaN, empty names and text in place of numbers.

    Args:
        content: metadata of a card, as read from its YAML.

    Raises:
        InputError: names the field and what is wrong with it.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"card metadata: must be a mapping, not a {type(content).__name__}")
    _check_values(content, "")
    for name in ("base_model", "datasets"):
        ids = content.get(name, [])
        for repo_id in [ids] if isinstance(ids, str) else ids:
            if not is_repo_id(repo_id):
                raise InputError(f"card metadata: {name} {repo_id!r} is no Hub id; fix it or leave it out")
    license = content.get("license")
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", str(license)):
        raise InputError(f"card metadata: license {license!r} is no Hub licence identifier such as apache-2.0")
    try:
        models = content.get("model-index", [])
        metrics = [
            (m["type"], m["value"]) for model in models for result in model["results"] for m in result["metrics"]
        ]
    except (TypeError, KeyError) as error:
        raise InputError("card metadata: model-index must list models with results and metrics") from error
    for kind, value in metrics:
        if not is_number(value):
            raise InputError(f"card metadata: {kind} must be a number, not {value!r}")


def _check_values(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, where)
    elif isinstance(value, str) and not value.strip():
        raise InputError(f"card metadata: {where} is empty; fill it or leave it out")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"card metadata: {where} is {value}; leave out what was not measured")


def is_on_hub(name: str | None) -> bool:
    """Whether a name is a Hub id with its namespace, and no folder here."""
    return name is not None and name.count("/") == 1 and is_repo_id(name) and not Path(name).exists()


def is_repo_id(name: Any) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
