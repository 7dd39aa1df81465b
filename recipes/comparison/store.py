"""Results on disk: each a JSON file of its own, written atomically, found again by everything that it depends on."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from advbn_hf.errors import InputError
from advbn_hf.utils.files import write_atomically
from advbn_hf.utils.fingerprint import hash_settings


class Store:
    """A folder of results. Several processes may share it.

    Args:
        folder: created if missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result that was stored for these settings, or None."""
        path = self._path(settings)
        return _read(path)["result"] if path.exists() else None

    def put(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Stores a result; it replaces any other for the same settings."""
        content = {"settings": settings, "result": result}
        write_atomically(self._path(settings), json.dumps(content, indent=1, sort_keys=True) + "\n")

    def all(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Settings and result of all that is stored, in the order of the file names."""
        for path in sorted(self.folder.glob("[!.]*.json")):
            content = _read(path)
            yield content["settings"], content["result"]

    def _path(self, settings: Mapping[str, Any]) -> Path:
        return self.folder / f"{key_of(settings)}.json"


def key_of(settings: Mapping[str, Any]) -> str:
    """A file name: the settings that are plain values, for people, and a digest of all of them."""
    shown = "_".join(str(value) for value in settings.values() if isinstance(value, (str, int)))
    return f"{re.sub(r'[^A-Za-z0-9.=_-]', '-', shown)[:120]}_{hash_settings(settings)[:12]}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: content[name] for name in ("settings", "result")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no stored result ({error}); remove it") from error
