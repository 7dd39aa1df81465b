"""Uploading a checkpoint as one commit: afterwards the repository has all of it, or is unchanged."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import (
    CommitInfo,
    CommitOperation,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
)
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from transformers import TrainingArguments
from transformers.utils import logging

from ..errors import InputError
from ..utils.advice import either
from .card import CARD_FILE
from .contents import BRANCHES, WEIGHTS, additions, files_to_upload
from .errors import AGAIN, LOG_IN, explained
from .generated_card import is_generated

logger = logging.get_logger(__name__)

_TRIES = 3  # to remove what was created for an upload that failed: the Hub may fail that too


def planned_changes(
    folder: str | Path, repo_id: str, *, revision: str | None = None, token: str | None = None
) -> list[CommitOperation]:
    """What `upload_checkpoint` would commit. Only reads.

    Args:
        folder: the checkpoint.
        repo_id: repository on the Hub; it need not exist.
        revision: branch; the default branch without it.
        token: by default `HF_TOKEN` or the login.

    Raises:
        InputError: as `upload_checkpoint`.
        ConnectionError: if the Hub cannot be asked.
    """
    files, api = additions(folder, repo_id, token), HfApi(token=token)
    with explained(repo_id):
        try:
            head = _info(api, repo_id, revision).sha
        except RepositoryNotFoundError:
            return files
        return _changes(api, repo_id, head, files)


def upload_checkpoint(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str = "Upload AdvBN checkpoint",
    revision: str | None = None,
    create_pr: bool = False,
    private: bool | None = None,
    token: str | None = None,
    again: str = AGAIN,
) -> CommitInfo | None:
    """Uploads a checkpoint as one commit of what has changed.

    Args:
        folder: the checkpoint; it is only read. In its card the repository replaces `path/to/this/folder`; a generated
            card does not replace one on the Hub that somebody has written or edited.
        repo_id: repository on the Hub; created if missing. Without a namespace it is the user's own.
        commit_message: first line of the commit.
        revision: branch to commit to, created if missing; the default branch without it.
        create_pr: open a pull request instead of committing to the branch.
        private: whether a new repository is private; True is refused where a public one exists.
        token: a write token; by default `HF_TOKEN` or the login.
        again: how to resume after a failure, for its message.

    Returns:
        The commit; None where the repository had every file already.

    Raises:
        InputError: the folder is no checkpoint, its card's metadata are not valid, a file holds a token or a path of
            this machine, or the Hub refuses: the message says what to do.
        ConnectionError: the Hub failed or was not reached.
    """
    if create_pr and revision is not None:
        raise InputError("create_pr: a pull request is made against the default branch; leave out revision")
    files_to_upload(folder)
    repo_id = full_repo_id(repo_id, token)
    files, api = additions(folder, repo_id, token), HfApi(token=token)
    with explained(repo_id, again), _branch(api, repo_id, revision, private) as head:
        operations = _changes(api, repo_id, head, files)
        if not operations:
            return None
        return api.create_commit(
            repo_id,
            operations,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=head,  # the commit that was compared, whoever else commits meanwhile
        )


def upload_in_background(folder: str | Path, repo_id: str, **options: object) -> Future:
    """Starts `upload_checkpoint` on the files as they are now, even if the folder changes. A failure is logged.

    Args:
        folder: the checkpoint.
        repo_id: repository on the Hub.
        options: for `upload_checkpoint`.
    """
    paths = files_to_upload(folder)
    snapshot = Path(tempfile.mkdtemp(prefix=".upload-", dir=Path(folder).parent))
    for path in paths:
        (snapshot / path).parent.mkdir(exist_ok=True)
        _link(Path(folder) / path, snapshot / path)

    def upload() -> CommitInfo | None:
        try:
            return upload_checkpoint(snapshot, repo_id, **options)
        except Exception as error:
            logger.warning(f"{folder} was not uploaded: {error}")
            raise
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)

    return HfApi().run_as_future(upload)


def options_from(args: TrainingArguments, **given: object) -> dict[str, object]:
    """Options for `upload_checkpoint`: the given ones, else those of the `hub_` training arguments.

    Args:
        args: training arguments.
        given: options for `upload_checkpoint`; None for those that are not given.
    """
    options = {"token": args.hub_token, "revision": args.hub_revision, "private": args.hub_private_repo}
    options["again"] = either(
        f"recipes/push_to_hub.py --checkpoint {args.output_dir} continues", "trainer.push_to_hub() continues"
    )
    return options | {name: value for name, value in given.items() if value is not None}


def full_repo_id(repo_id: str, token: str | None = None) -> str:
    """A repository's id with its namespace, the user's own where it has none.

    Args:
        repo_id: `name` or `namespace/name`.
        token: by default `HF_TOKEN` or the login.

    Raises:
        InputError: if not logged in.
        ConnectionError: if the Hub cannot be asked.
    """
    if "/" in repo_id:
        return repo_id
    with explained(repo_id):
        return f"{HfApi(token=token).whoami()['name']}/{repo_id}"


def check_access(args: TrainingArguments, **given: object) -> str:
    """Checks before hours of training what would stop the upload after them. Only reads.

    Args:
        args: training arguments; without `hub_model_id` the repository is named like the output folder.
        given: `token` and `private`, where they are not those of the arguments.

    Returns:
        The repository's id with its namespace.

    Raises:
        InputError: not logged in, the token may not write, or a public repository should be private.
        ConnectionError: if the Hub cannot be asked.
    """
    repo_id = args.hub_model_id or Path(args.output_dir).absolute().name
    options = options_from(args, **given)
    api = HfApi(token=options["token"])
    with explained(repo_id):
        user = api.whoami()
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise InputError(f"{repo_id}: the token may only read; {LOG_IN}; {AGAIN}")
        repo_id = repo_id if "/" in repo_id else f"{user['name']}/{repo_id}"
        with suppress(RepositoryNotFoundError):
            _refuse_public(api.model_info(repo_id), options["private"])
    return repo_id


@contextmanager
def _branch(api: HfApi, repo_id: str, revision: str | None, private: bool | None) -> Iterator[str]:
    """Yields the commit to build on. Repository and branch are created if missing, and removed if the block fails."""
    new_repo = new_branch = False
    try:
        try:
            info = api.model_info(repo_id)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            new_repo = True
            try:
                api.create_repo(repo_id, private=private)
            except HfHubHTTPError:  # a response: it was not created
                new_repo = False
                raise
            info = api.model_info(repo_id)
        _refuse_public(info, private)
        if revision is not None:
            try:
                info = api.model_info(repo_id, revision=revision)
            except RevisionNotFoundError:
                new_branch = True
                api.create_branch(repo_id, branch=revision)
        yield info.sha
    except BaseException:
        for _ in range(_TRIES):
            # A commit may have arrived though its response did not: only what is still empty is removed.
            with suppress(Exception):
                if new_repo and _is_empty(api, repo_id):
                    api.delete_repo(repo_id)
                elif new_branch and api.model_info(repo_id, revision=revision).sha == info.sha:
                    api.delete_branch(repo_id, branch=revision)
                break
        raise


def _is_empty(api: HfApi, repo_id: str) -> bool:
    """Whether a repository is as it was created: one commit, that of its `.gitattributes`."""
    refs = api.list_repo_refs(repo_id, include_pull_requests=True)
    commits = {ref.target_commit for ref in (*refs.branches, *(refs.pull_requests or []))}
    return len(commits) == 1 and set(api.list_repo_files(repo_id)) <= {".gitattributes"}


def _info(api: HfApi, repo_id: str, revision: str | None) -> ModelInfo:
    """The repository at a branch, or at its default branch where the branch does not exist yet."""
    if revision is not None:
        with suppress(RevisionNotFoundError):
            return api.model_info(repo_id, revision=revision)
    return api.model_info(repo_id)


def _refuse_public(info: ModelInfo, private: bool | None) -> None:
    if private and not info.private:
        raise InputError(f"private: {info.id} exists and is public; change that in its settings, or name another")


def _changes(api: HfApi, repo_id: str, head: str, additions: list[CommitOperationAdd]) -> list[CommitOperation]:
    """The files that differ from those at `head`, and weights there that are replaced under other names.

    A card there that somebody has written or edited is not replaced by a generated one.
    """
    tree = api.list_repo_tree(repo_id, revision=head, recursive=True)
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    changed = [addition for addition in additions if not _same(there.get(addition.path_in_repo), addition)]
    card = next((addition for addition in changed if addition.path_in_repo == CARD_FILE), None)
    if card and CARD_FILE in there and is_generated(_content(card)) and not _has_generated_card(api, repo_id, head):
        logger.warning(f"{repo_id}: its {CARD_FILE} was written or edited by somebody, and stays")
        changed.remove(card)
    ours = {addition.path_in_repo for addition in additions}
    weights = [f"{branch}{name}" for branch in BRANCHES for name in WEIGHTS]
    replaced = [p for p in sorted(there.keys() - ours) if any(fnmatchcase(p, pattern) for pattern in weights)]
    return [*changed, *(CommitOperationDelete(path) for path in replaced)]


def _same(entry: RepoFile | None, addition: CommitOperationAdd) -> bool:
    """Whether a file on the Hub has the content to be added, by its hash there: git's, or SHA-256."""
    if entry is None or entry.size != addition.upload_info.size:
        return False
    if entry.lfs is not None:
        return entry.lfs.sha256 == addition.upload_info.sha256.hex()
    return entry.blob_id == git_hash(_content(addition))


def _content(addition: CommitOperationAdd) -> bytes:
    with addition.as_file() as file:
        return file.read()


def _has_generated_card(api: HfApi, repo_id: str, head: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo_id, CARD_FILE, revision=head, local_dir=folder)
        return is_generated(Path(path).read_bytes())


def _link(source: Path, target: Path) -> None:
    """Links a file, which is safe since files are replaced, never changed; copies it where links are not supported."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
