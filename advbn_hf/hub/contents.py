"""What of a checkpoint folder belongs on the Hub, checked before anything is sent."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, get_token, metadata_load

from ..config import AUXILIARY_FOLDER, CONFIG_FILE
from ..errors import InputError
from .card import CARD_FILE
from .generated_card import addressed, is_generated
from .metadata import TOKEN, validate_metadata

BRANCHES = ("", f"{AUXILIARY_FOLDER}/")  # where each lies in a checkpoint
_SINGLE, _INDEX, _SHARD = "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"
WEIGHTS = (_SINGLE, _INDEX, _SHARD)
# What Transformers takes for weights, before and after the variant.
_ANY_WEIGHTS = (
    ("model", ".safetensors"),
    ("model", "-[0-9]*-of-[0-9]*.safetensors"),
    ("model.safetensors.index", ".json"),
    ("pytorch_model", ".bin"),
    ("pytorch_model", "-[0-9]*-of-[0-9]*.bin"),
    ("pytorch_model.bin.index", ".json"),
)
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
# Whatever is not named here is not uploaded: optimizer state, logs, arguments, other checkpoints.
_OF_A_BRANCH = ("config.json", "preprocessor_config.json")
_BESIDE = (
    CONFIG_FILE,
    CARD_FILE,
    "results.json",
    "results.png",
    "samples.png",
    "training.png",
    ".eval_results/*.yaml",
)
_TEXT = (".json", ".md", ".yaml")


def files_to_upload(folder: str | Path) -> list[Path]:
    """Files of a checkpoint folder that belong on the Hub.

    Args:
        folder: what `AdvBNForImageClassification.save_pretrained` or a recipe wrote.

    Returns:
        Paths relative to the folder, in order.

    Raises:
        InputError: if the folder is no checkpoint with both branches, or one of its files is a link to another folder.
    """
    folder = Path(folder)
    patterns = [*_BESIDE, *(f"{branch}{name}" for branch in BRANCHES for name in _OF_A_BRANCH)]
    found = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    for needed in (CONFIG_FILE, *(f"{branch}config.json" for branch in BRANCHES)):
        if Path(needed) not in found:
            raise InputError(
                f"{folder} has no {needed}; give a folder that recipes/finetune.py or save_pretrained wrote"
            )
    found = found.union(weight_files(folder))
    for path in sorted(found):
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder / path} is a link to {(folder / path).resolve()}; put the file itself there")
    return sorted(found)


def replaced_files(folder: Path, new: Path, variant: str | None = None) -> list[Path]:
    """The files of a checkpoint that another one replaces, saved in the same folder.

    A processor that lies beside both branches was saved with them; beside the clean one alone, by somebody.

    Args:
        folder: the checkpoint.
        new: the other one, before its files move there.
        variant: of the other one's weights; those of others stay.
    """
    infix = "" if variant is None else f".{variant}"
    patterns = [f"{start}{infix}{end}" for start, end in _ANY_WEIGHTS] + list(_ADAPTER)
    found = [
        path
        for branch in BRANCHES
        for path in (folder / branch).glob("*")
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in patterns)
    ]
    has_processor = any((new / name).is_file() for name in _PROCESSOR)
    for name in _PROCESSOR:
        first, second = (folder / branch / name for branch in BRANCHES)
        if first.is_file() and (has_processor or (second.is_file() and first.read_bytes() == second.read_bytes())):
            found.append(first)
        if second.is_file():
            found.append(second)
    card = folder / CARD_FILE
    if not (new / CARD_FILE).exists() and card.is_file() and is_generated(card.read_bytes()):
        found.append(card)
    return found


def weight_files(folder: str | Path) -> list[Path]:
    """The files that Transformers loads the weights of both branches from, relative to the checkpoint.

    Args:
        folder: the checkpoint.

    Raises:
        InputError: names a file that is missing.
    """
    return [path for branch in BRANCHES for path in _weights(Path(folder), branch)]


def _weights(folder: Path, branch: str) -> list[Path]:
    """The files that Transformers loads the weights of a branch from."""
    if (folder / branch / _SINGLE).is_file():
        return [Path(branch, _SINGLE)]
    try:
        index = json.loads((folder / branch / _INDEX).read_text(encoding="utf-8"))
        shards = {str(shard) for shard in index["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} has no {branch}{_SINGLE}; save the model there again") from error
    for shard in sorted(shards):
        if not (fnmatchcase(shard, _SHARD) and "/" not in shard and (folder / branch / shard).is_file()):
            raise InputError(f"{folder} has no {branch}{shard}, which is in {_INDEX}; save the model there again")
    return [Path(branch, name) for name in (_INDEX, *sorted(shards))]


def additions(folder: str | Path, repo_id: str, token: str | None = None) -> list[CommitOperationAdd]:
    """All files of a checkpoint as they will be uploaded.

    Args:
        folder: the checkpoint; it is only read.
        repo_id: replaces `path/to/this/folder` in the card.
        token: one that no file may hold, beside that of the login.

    Raises:
        InputError: the folder is no checkpoint, its card's metadata are not valid, or a file holds a token or a path
            of this machine.
    """
    added = []
    for path in files_to_upload(folder):
        content: Path | bytes = Path(folder) / path
        if path.suffix in _TEXT:
            text = content.read_text(encoding="utf-8", errors="replace")
            _refuse_secrets(path, text, Path(folder), token)
            if path.name == CARD_FILE:
                _check_card(content)
                content = addressed(text, repo_id).encode()
        added.append(CommitOperationAdd(path.as_posix(), content))
    return added


def _check_card(path: Path) -> None:
    try:
        metadata = metadata_load(path) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: its metadata are no valid YAML mapping: {' '.join(str(error).split())}") from error
    validate_metadata(metadata)


def _refuse_secrets(path: Path, text: str, folder: Path, token: str | None) -> None:
    if TOKEN.search(text) or any(secret and secret in text for secret in (token, get_token())):
        raise InputError(f"{path} holds what looks like a token of the Hub; remove it, and revoke the token")
    for private in {Path.home(), Path.cwd(), folder.resolve()}:
        if private.name and re.search(rf"(?<![\w./-]){re.escape(str(private))}(?![\w-])", text):
            raise InputError(f"{path} names the folder {private} of this machine; remove that")
