"""Sending a finished checkpoint to the Hub: one commit of the files that belong there, and of no others."""

from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

from .config import CONFIG_FILE
from .errors import InputError
from .modeling import AUXILIARY_FOLDER

# Weights may be in shards. Whatever is not named here stays: optimizer state, logs, arguments, other checkpoints.
_OF_A_BRANCH = (
    "config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
)
_BESIDE = (CONFIG_FILE, "README.md", "results.json", "results.png", "samples.png", "training.png")


def files_to_upload(folder: str | Path) -> list[Path]:
    """Files of a checkpoint folder that belong on the Hub.

    Args:
        folder: what `AdvBNForImageClassification.save_pretrained` or a recipe wrote.

    Returns:
        Paths relative to the folder, in order.

    Raises:
        InputError: if the folder is no checkpoint.
    """
    folder = Path(folder)
    patterns = [*_OF_A_BRANCH, *(f"{AUXILIARY_FOLDER}/{name}" for name in _OF_A_BRANCH), *_BESIDE]
    found = sorted(
        {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    )
    for needed in ("config.json", CONFIG_FILE):
        if Path(needed) not in found:
            raise InputError(
                f"{folder} has no {needed}; give a folder that recipes/finetune.py or save_pretrained wrote"
            )
    return found


def upload_checkpoint(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str = "Upload AdvBN checkpoint",
    revision: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Uploads a checkpoint as one commit: the repository has all of it afterwards, or is as it was.

    Args:
        folder: the checkpoint.
        repo_id: repository on the Hub; it must exist.
        commit_message: first line of the commit.
        revision: branch to commit to; the default branch without it.
        token: a write token; by default `HF_TOKEN` or the login.

    Raises:
        InputError: if the folder is no checkpoint.
    """
    operations = [
        CommitOperationAdd(path_in_repo=path.as_posix(), path_or_fileobj=Path(folder) / path)
        for path in files_to_upload(folder)
    ]
    return HfApi(token=token).create_commit(
        repo_id, operations=operations, commit_message=commit_message, revision=revision
    )
