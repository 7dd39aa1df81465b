"""What is on the double of the Hub: accounts, repositories, commits and files, all in memory."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from typing import Literal

# The part of the Hub's default .gitattributes that matters to models, tables and images.
LFS_SUFFIXES = (".arrow", ".bin", ".ckpt", ".h5", ".npy", ".npz", ".onnx", ".parquet", ".pkl", ".pt", ".pth")
LFS_SUFFIXES += (".safetensors", ".tar", ".zip")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # in datasets only


class HubError(Exception):
    """A request that the Hub refuses.

    Args:
        status: HTTP status.
        message: for people; the client shows it.
        code: `X-Error-Code`, by which the client picks the exception that it raises.
        headers: any other headers.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = HTTPStatus(status)
        self.message = message
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


@dataclass(frozen=True)
class Account:
    """Who a token stands for."""

    user: str
    role: Literal["read", "write"]


@dataclass(frozen=True)
class Blob:
    """One version of a file."""

    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git keeps in place of an LFS file."""
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(self.data)}")
        return "".join(f"{line}\n" for line in lines).encode()

    @cached_property
    def oid(self) -> str:
        """Git's name of the blob."""
        content = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        """Under what name the client caches the file."""
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one time."""

    files: Mapping[str, Blob]
    parent: str | None
    author: str
    title: str
    message: str = ""
    oid: str = field(default_factory=lambda: hashlib.sha1(uuid.uuid4().bytes).hexdigest())
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z")


@dataclass(frozen=True)
class Discussion:
    """A discussion or, where `pull_request`, a pull request whose commits are under `refs/pr/{num}`."""

    num: int
    title: str
    author: str
    pull_request: bool
    date: str


@dataclass
class Repo:
    """A repository; `refs` maps a full name such as `refs/heads/main` to the id of a commit."""

    kind: Literal["model", "dataset", "space"]
    id: str
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    granted: set[str] = field(default_factory=set)  # users let through the gate
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    lfs: dict[str, bytes] = field(default_factory=dict)  # by sha256, whether a commit names them or not

    def __post_init__(self) -> None:
        suffixes = LFS_SUFFIXES + (IMAGE_SUFFIXES if self.kind == "dataset" else ())
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in suffixes)
        files = {".gitattributes": Blob(attributes.encode(), lfs=False)}
        self.advance("refs/heads/main", Commit(files, None, self.owner, "initial commit"))

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def prefix(self) -> str:
        """What comes before the id in the address of its pages and files."""
        return "" if self.kind == "model" else f"{self.kind}s/"

    def ref(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request, or None where there is none of that name."""
        candidates = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in candidates if name in self.refs), None)

    def commit(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request, commit id or start of one means.

        Raises:
            HubError: 404 `RevisionNotFound`.
        """
        if name := self.ref(revision):
            return self.commits[self.refs[name]]
        matches = [oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)]
        if len(matches) != 1:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[matches[0]]

    def advance(self, ref: str, commit: Commit) -> None:
        """Record a commit and let `ref` point to it."""
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid


class Store:
    """Everything on the double, and who may see and change what."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}  # by token
        self.repos: dict[tuple[str, str], Repo] = {}  # by kind and id
        self.uploads: dict[str, tuple[Repo, str, int]] = {}  # by ticket: repository, sha256 and size to come

    def account(self, token: str | None) -> Account | None:
        """Who asks, None for nobody in particular.

        Raises:
            HubError: 401 for a token that is not known.
        """
        if token is not None and token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts.get(token) if token else None

    def readable(self, kind: str, repo_id: str, account: Account | None) -> Repo:
        """A repository that `account` may know of.

        Raises:
            HubError: `RepoNotFound`, with 401 for anonymous clients and 404 for others, as on the Hub.
        """
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and (account is None or account.user != repo.owner)):
            raise HubError(404 if account else 401, "Repository not found", "RepoNotFound")
        return repo

    def downloadable(self, kind: str, repo_id: str, account: Account | None) -> Repo:
        """A repository whose files `account` may read.

        Raises:
            HubError: as `readable`; `GatedRepo` with 401 or 403 in front of a gate.
        """
        repo = self.readable(kind, repo_id, account)
        if repo.gated and (account is None or account.user not in {repo.owner, *repo.granted}):
            message = f"Access to {kind} {repo_id} is restricted. You must have access to it and be authenticated."
            raise HubError(403 if account else 401, message, "GatedRepo")
        return repo

    def writable(self, kind: str, repo_id: str, account: Account | None, pull_request: bool = False) -> Repo:
        """A repository that `account` may change, or open a pull request on.

        Raises:
            HubError: as `readable`; 401 for anonymous clients; 403 for a read token or another's repository.
        """
        repo = self.readable(kind, repo_id, account)
        if account is None:  # over https the client takes any such 401 for a missing repository; over http by its code
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        self.authorize(account, account.user if pull_request else repo.owner)
        return repo

    def authorize(self, account: Account | None, namespace: str) -> Account:
        """Check that `account` may write under `namespace`.

        Raises:
            HubError: 401 or 403.
        """
        if account is None:
            raise HubError(401, "Invalid username or password.")
        if account.role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        if account.user != namespace:
            raise HubError(403, f"You don't have the rights to write under the namespace {json.dumps(namespace)}")
        return account
