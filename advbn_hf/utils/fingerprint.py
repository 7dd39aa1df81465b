"""Digests of what cached results depend on: settings, files, tensors. Another digest means that a cache is rebuilt.

All are SHA-256 in hexadecimal, 64 characters; a file name needs no more than the first 16.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def hash_settings(settings: Any) -> str:
    """The digest of JSON values; the order of a mapping's keys does not matter.

    Args:
        settings: dictionaries, lists, texts, numbers, bools and None; anything else counts by its text.

    Example:
        >>> hash_settings({"a": 1, "b": [2]}) == hash_settings({"b": [2], "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def hash_parts(parts: Iterable[bytes]) -> str:
    """The digest of several pieces of bytes, one in memory at a time; where a piece ends matters.

    Example:
        >>> hash_parts([b"a", b"b"]) == hash_parts([b"ab"])
        False
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file's content, as `sha256sum` prints it.

    Args:
        path: the file, which is read piece by piece.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_state(paths: Iterable[str | Path]) -> str:
    """The digest of the files' names, sizes and times of their last change: their contents are not read.

    Args:
        paths: files, and links that may be broken.
    """
    states = []
    for path in sorted(map(Path, paths)):
        state = path.stat() if path.exists() else None
        states.append((str(path), state and (state.st_size, state.st_mtime_ns)))
    return hash_settings(states)


def hash_tensors(tensors: Mapping[str, Tensor] | Iterable[Tensor]) -> str:
    """The digest of tensors' shapes, dtypes and values, to the bit; their device and memory layout do not matter.

    Args:
        tensors: a state dict, whose order does not matter, or tensors, whose order does.

    Example:
        >>> hash_tensors([torch.zeros(2)]) == hash_tensors([torch.zeros(2, 1)])
        False
    """
    named = sorted(tensors.items()) if isinstance(tensors, Mapping) else enumerate(tensors)
    total = hashlib.sha256()
    for name, tensor in named:
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
