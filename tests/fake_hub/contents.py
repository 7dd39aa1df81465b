"""Routes that read files: tree, paths-info and resolve."""

import hashlib
import re
from typing import Any

from .routing import Reply, Request, route
from .store import Blob, Commit, HubError, Store


@route("GET", "/api/{kind}/{repo_id}/tree/{revision}")
def root_tree(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    return tree(store, request, kind, repo_id, revision, "")


@route("GET", "/api/{kind}/{repo_id}/tree/{revision}/{path}")
def tree(store: Store, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Reply:
    """The content of a folder, with subfolders if `recursive`; in one page."""
    refuse_expand(request.flag("expand"))
    commit = store.readable(kind, repo_id, request.account).commit(revision)
    start = f"{path.strip('/')}/" if path else ""
    paths = [p for p in sorted(paths_of(commit)) if p.startswith(start)]
    if start and not paths:
        raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound")
    wanted = [p for p in paths if request.flag("recursive") or "/" not in p[len(start) :]]
    return Reply([entry(commit, p) for p in wanted])


@route("POST", "/api/{kind}/{repo_id}/paths-info/{revision}")
def paths_info(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    wanted = request.form
    refuse_expand(wanted.get("expand", ["false"])[0].lower() == "true")
    commit = store.readable(kind, repo_id, request.account).commit(revision)
    existing = paths_of(commit)
    return Reply([entry(commit, p) for p in wanted.get("paths", []) if p in existing])


def refuse_expand(expand: bool) -> None:
    """The double does not keep each file's last commit and security scan."""
    if expand:
        raise HubError(501, "the double of the Hub does not know expand=true")


def paths_of(commit: Commit) -> set[str]:
    """The paths of all files and of the folders that they are in."""
    folders = {path[: slash.start()] for path in commit.files for slash in re.finditer("/", path)}
    return folders | commit.files.keys()


def entry(commit: Commit, path: str) -> dict[str, Any]:
    """A file or folder as tree and paths-info describe it."""
    if blob := commit.files.get(path):
        listed = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.data)}
        pointer = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
        return listed | ({"lfs": pointer} if blob.lfs else {})
    below = sorted((p, blob.oid) for p, blob in commit.files.items() if p.startswith(f"{path}/"))
    return {"type": "directory", "path": path, "oid": hashlib.sha1(repr(below).encode()).hexdigest(), "size": 0}


@route("GET", "/{prefix}{repo_id}/resolve/{revision}/{path}")
def resolve(store: Store, request: Request, kind: str, repo_id: str, revision: str, path: str) -> Reply:
    """A file's bytes, all or a range; LFS files come from here too, without the Hub's detour over a CDN."""
    commit = store.downloadable(kind, repo_id, request.account).commit(revision)
    headers = {"X-Repo-Commit": commit.oid}
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    headers |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if blob.lfs:
        headers |= {"X-Linked-Size": str(len(blob.data)), "X-Linked-Etag": f'"{blob.etag}"'}
    if wanted := request.headers.get("Range"):
        return part(blob, wanted, headers)
    return Reply(blob.data, 200, headers)


def part(blob: Blob, wanted: str, headers: dict[str, str]) -> Reply:
    """One range of a file: `bytes=first-last`, `bytes=first-` or `bytes=-count`."""
    size = len(blob.data)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if not match or match.groups() == ("", ""):
        raise HubError(501, f"the double of the Hub does not know the range {wanted}")
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return Reply(blob.data[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})
