"""Routes that write files, in the client's order: preupload, LFS batch, LFS upload and verification, commit."""

import base64
import binascii
import fnmatch
import hashlib
import json
import uuid
from pathlib import PurePosixPath
from typing import Any

from .repos import discuss
from .routing import Reply, Request, route
from .store import Blob, Commit, HubError, Repo, Store

LFS_THRESHOLD = 10 * 1024 * 1024  # bytes: any file above is LFS


@route("POST", "/api/{kind}/{repo_id}/preupload/{revision}")
def preupload(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    """Which files go as LFS, and what is there now under their names."""
    repo = store.writable(kind, repo_id, request.account, pull_request=request.flag("create_pr"))
    commit = repo.commit(revision)
    if "gitIgnore" in request.json or ".gitignore" in commit.files:
        raise HubError(501, "the double of the Hub does not know .gitignore")
    replies = []
    for wanted in request.json["files"]:
        lfs = is_lfs(commit, wanted["path"], wanted["size"], base64.b64decode(wanted["sample"]))
        reply = {"path": wanted["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if blob := commit.files.get(wanted["path"]):
            reply["oid"] = blob.etag
        replies.append(reply)
    return Reply({"files": replies})


def is_lfs(commit: Commit, path: str, size: int, sample: bytes) -> bool:
    """By .gitattributes, by size, or because the file's start is binary."""
    attributes = commit.files[".gitattributes"].data.decode() if ".gitattributes" in commit.files else ""
    patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line.split()]
    names = {path, PurePosixPath(path).name}
    marked = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)
    return marked or size > LFS_THRESHOLD or b"\0" in sample


@route("POST", "/{prefix}{repo_id}.git/info/lfs/objects/batch")
def lfs_batch(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    """Where to send each object that the repository lacks."""
    wanted = request.json
    repo = store.writable(kind, repo_id, request.account, pull_request="ref" not in wanted)
    if wanted["operation"] != "upload" or "basic" not in wanted["transfers"] or wanted["hash_algo"] != "sha256":
        raise HubError(501, "the double of the Hub knows only basic LFS uploads")
    objects = []
    for item in wanted["objects"]:
        reply: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in repo.lfs:
            ticket = uuid.uuid4().hex  # stands for the signature of the storage's address: no token goes there
            store.uploads[ticket] = (repo, item["oid"], item["size"])
            verify = f"{request.endpoint}/{repo.prefix}{repo.id}.git/info/lfs/verify"
            reply["actions"] = {
                "upload": {"href": f"{request.endpoint}/lfs-storage/{ticket}"},
                "verify": {"href": verify},
            }
        objects.append(reply)
    return Reply({"transfer": "basic", "objects": objects})


@route("PUT", "/lfs-storage/{ticket}")
def lfs_upload(store: Store, request: Request, ticket: str) -> Reply:
    """Take an object's bytes, if they are those that were promised."""
    if ticket not in store.uploads:
        raise HubError(403, "The upload address is not valid")
    repo, oid, size = store.uploads[ticket]
    received = hashlib.sha256(request.body).hexdigest()
    if len(request.body) != size or received != oid:
        raise HubError(400, f"Expected {size} bytes of sha256 {oid}, received {len(request.body)} of {received}")
    repo.lfs[oid] = request.body
    return Reply()


@route("POST", "/{prefix}{repo_id}.git/info/lfs/verify")
def lfs_verify(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    repo = store.writable(kind, repo_id, request.account, pull_request=True)
    wanted = request.json
    if len(repo.lfs.get(wanted["oid"], b"")) != wanted["size"]:
        raise HubError(404, f"LFS object {wanted['oid']} of {wanted['size']} bytes was not received")
    return Reply({})


@route("POST", "/api/{kind}/{repo_id}/commit/{revision}")
def commit(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    """Apply all operations of the NDJSON body, or none, to a branch or to a new pull request."""
    create_pr = request.flag("create_pr")
    repo = store.writable(kind, repo_id, request.account, pull_request=create_pr)
    header, *operations = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    if header["key"] != "header":
        raise HubError(400, "The first line of a commit must be its header")
    title, description = header["value"]["summary"], header["value"].get("description", "")
    parent = header["value"].get("parentCommit")

    ref, head = repo.ref(revision), repo.commit(revision)
    if ref is None or ref.startswith("refs/tags/"):
        raise HubError(404, f"{revision} is not a branch", "RevisionNotFound")
    if create_pr and parent:
        head = repo.commit(parent)
    elif parent and not head.oid.startswith(parent):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    author = request.account.user
    new = Commit(apply(repo, head, operations), head.oid, author, title, description)

    reply = {"success": True, "commitOid": new.oid, "hookOutput": ""}
    reply["commitUrl"] = f"{request.endpoint}/{repo.prefix}{repo.id}/commit/{new.oid}"
    if create_pr:
        num = discuss(repo, title, author, pull_request=True, base=head.oid).num
        ref = f"refs/pr/{num}"
        reply["pullRequestUrl"] = f"{request.endpoint}/{repo.prefix}{repo.id}/discussions/{num}"
    repo.advance(ref, new)
    return Reply(reply)


def apply(repo: Repo, head: Commit, operations: list[dict[str, Any]]) -> dict[str, Blob]:
    """The files after the operations; `head` is left as it is.

    Raises:
        HubError: for the first operation that cannot be done.
    """
    files = dict(head.files)
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = value["path"].strip("/")
        if ".." in PurePosixPath(path).parts:
            raise HubError(400, f"Invalid path: {value['path']}")
        if key == "file":
            files[path] = Blob(decode(value), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in repo.lfs:
                raise HubError(400, f"LFS pointer of {path} points to a file that does not exist: {value['oid']}")
            files[path] = Blob(repo.lfs[value["oid"]], lfs=True)
        elif key in {"deletedFile", "deletedFolder"}:
            gone = [p for p in files if p == path or (key == "deletedFolder" and p.startswith(f"{path}/"))]
            if not gone:
                raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for p in gone:
                del files[p]
        else:
            raise HubError(501, f"the double of the Hub does not know the operation {key} in a commit")
    return files


def decode(value: dict[str, str]) -> bytes:
    """A regular file's bytes."""
    if value.get("encoding") != "base64":
        return value["content"].encode()
    try:
        return base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise HubError(400, f"Content of {value['path']} is not base64: {error}") from error
