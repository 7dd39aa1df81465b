"""Routes about repositories as a whole: create, describe, settings, branches, tags, history, pull requests."""

from typing import Any

from .cards import card_of
from .routing import Reply, Request, route
from .store import Blob, Discussion, HubError, Repo, Store


@route("POST", "/api/repos/create")
def create(store: Store, request: Request) -> Reply:
    wanted = request.json
    namespace = wanted.get("organization") or (request.account.user if request.account else "")
    store.authorize(request.account, namespace)
    repo = Repo(wanted.get("type", "model"), f"{namespace}/{wanted['name']}", wanted.get("visibility") == "private")
    reply = {"url": f"{request.endpoint}/{repo.prefix}{repo.id}", "name": repo.id, "id": repo.id}
    if (repo.kind, repo.id) in store.repos:
        return Reply({**reply, "error": f"You already created this {repo.kind} repo"}, status=409)
    store.repos[repo.kind, repo.id] = repo
    return Reply(reply)


@route("DELETE", "/api/repos/delete")
def delete(store: Store, request: Request) -> Reply:
    wanted = request.json
    namespace = wanted.get("organization") or (request.account.user if request.account else "")
    repo = store.writable(wanted.get("type", "model"), f"{namespace}/{wanted['name']}", request.account)
    del store.repos[repo.kind, repo.id]
    return Reply({})


@route("PUT", "/api/{kind}/{repo_id}/settings")
def settings(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    repo = store.writable(kind, repo_id, request.account)
    wanted = request.json
    if unknown := wanted.keys() - {"gated", "visibility"}:
        raise HubError(501, f"the double of the Hub does not know the settings {sorted(unknown)}")
    repo.gated = wanted.get("gated", repo.gated)
    repo.private = wanted["visibility"] == "private" if "visibility" in wanted else repo.private
    return Reply({})


@route("GET", "/api/{kind}/{repo_id}")
def info(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    return describe(store, request, kind, repo_id, "main")


@route("GET", "/api/{kind}/{repo_id}/revision/{revision}")
def revision_info(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    return describe(store, request, kind, repo_id, revision)


def describe(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    """A repository at a revision; its files' sizes too where the client asks for `blobs`."""
    if unknown := request.query.keys() - {"blobs"}:
        raise HubError(501, f"the double of the Hub does not know the parameters {sorted(unknown)} of {request.path}")
    repo = store.readable(kind, repo_id, request.account)
    commit, card = repo.commit(revision), card_of(repo, revision)
    first = next(iter(repo.commits.values()))
    described = {"id": repo.id, "author": repo.owner, "sha": commit.oid, "private": repo.private, "gated": repo.gated}
    described |= {"createdAt": first.date, "lastModified": commit.date, "disabled": False, "downloads": 0, "likes": 0}
    described |= {"tags": card.get("tags", []), "cardData": card}
    described |= {name: card[name] for name in ("pipeline_tag", "library_name", "model-index") if name in card}
    described["siblings"] = [
        {"rfilename": path, **(sizes(blob) if request.flag("blobs") else {})}
        for path, blob in sorted(commit.files.items())
    ]
    return Reply(described)


def sizes(blob: Blob) -> dict[str, Any]:
    """A file's size and hashes, as this route describes them."""
    pointer = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return {"blobId": blob.oid, "size": len(blob.data), **({"lfs": pointer} if blob.lfs else {})}


@route("GET", "/api/{kind}/{repo_id}/auth-check")
def auth_check(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    store.downloadable(kind, repo_id, request.account)
    return Reply({})


@route("GET", "/api/{kind}/{repo_id}/auth-check/write")
def auth_check_write(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    store.writable(kind, repo_id, request.account)
    return Reply({})


@route("GET", "/api/{kind}/{repo_id}/refs")
def refs(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    repo = store.readable(kind, repo_id, request.account)

    def under(start: str) -> list[dict[str, str]]:
        names = [name for name in repo.refs if name.startswith(start)]
        return [{"name": name.removeprefix(start), "ref": name, "targetCommit": repo.refs[name]} for name in names]

    reply = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
    return Reply(reply | ({"pullRequests": under("refs/pr/")} if request.flag("include_prs") else {}))


@route("GET", "/api/{kind}/{repo_id}/commits/{revision}")
def commits(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    repo = store.readable(kind, repo_id, request.account)
    history = [repo.commit(revision)]
    while history[-1].parent:
        history.append(repo.commits[history[-1].parent])
    return Reply(
        [
            {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.author}]}
            for c in history
        ]
    )


@route("POST", "/api/{kind}/{repo_id}/branch/{branch}")
def create_branch(store: Store, request: Request, kind: str, repo_id: str, branch: str) -> Reply:
    repo = store.writable(kind, repo_id, request.account)
    if branch.startswith("refs/"):
        raise HubError(400, f"Invalid reference for a branch: {branch}")
    return point(repo, f"refs/heads/{branch}", request.json.get("startingPoint", "main"))


@route("POST", "/api/{kind}/{repo_id}/tag/{revision}")
def create_tag(store: Store, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
    repo = store.writable(kind, repo_id, request.account)
    return point(repo, f"refs/tags/{request.json['tag']}", revision)


def point(repo: Repo, ref: str, revision: str) -> Reply:
    """Let a new branch or tag point to a revision."""
    if ref in repo.refs:
        raise HubError(409, f"Reference already exists: {ref}")
    repo.refs[ref] = repo.commit(revision).oid
    return Reply({})


@route("DELETE", "/api/{kind}/{repo_id}/branch/{name}")
def delete_branch(store: Store, request: Request, kind: str, repo_id: str, name: str) -> Reply:
    return remove(store.writable(kind, repo_id, request.account), f"refs/heads/{name}")


@route("DELETE", "/api/{kind}/{repo_id}/tag/{name}")
def delete_tag(store: Store, request: Request, kind: str, repo_id: str, name: str) -> Reply:
    return remove(store.writable(kind, repo_id, request.account), f"refs/tags/{name}")


def remove(repo: Repo, ref: str) -> Reply:
    """Take a branch or tag away; its commits stay."""
    if ref not in repo.refs:
        raise HubError(404, f"Reference not found: {ref}", "RevisionNotFound")
    if ref == "refs/heads/main":
        raise HubError(403, "Cannot delete the default branch")
    del repo.refs[ref]
    return Reply({})


@route("GET", "/api/{kind}/{repo_id}/discussions")
def list_discussions(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    repo = store.readable(kind, repo_id, request.account)
    discussions = [summary(repo, discussion) for discussion in repo.discussions]
    return Reply({"discussions": discussions, "count": len(discussions), "start": 0})


@route("POST", "/api/{kind}/{repo_id}/discussions")
def open_discussion(store: Store, request: Request, kind: str, repo_id: str) -> Reply:
    repo = store.writable(kind, repo_id, request.account, pull_request=True)
    wanted = request.json
    discussion = discuss(repo, wanted["title"], request.account.user, bool(wanted.get("pullRequest")))
    return Reply(summary(repo, discussion))


def discuss(repo: Repo, title: str, author: str, pull_request: bool, base: str = "main") -> Discussion:
    """Open a discussion or a pull request, whose ref starts at the commit that `base` means."""
    commit = repo.commit(base)
    discussion = Discussion(len(repo.discussions) + 1, title, author, pull_request, commit.date)
    repo.discussions.append(discussion)
    if pull_request:
        repo.refs[f"refs/pr/{discussion.num}"] = commit.oid
    return discussion


@route("GET", "/api/{kind}/{repo_id}/discussions/{num}")
def discussion_details(store: Store, request: Request, kind: str, repo_id: str, num: str) -> Reply:
    repo = store.readable(kind, repo_id, request.account)
    found = [discussion for discussion in repo.discussions if str(discussion.num) == num]
    if not found:
        raise HubError(404, f"Discussion not found: {num}")
    changes = {"base": "refs/heads/main"}
    return Reply({**summary(repo, found[0]), "events": [], "filesWithConflicts": [], "changes": changes})


def summary(repo: Repo, discussion: Discussion) -> dict[str, Any]:
    """A discussion in a list of them."""
    return {
        "num": discussion.num,
        "title": discussion.title,
        "author": {"name": discussion.author},
        "createdAt": discussion.date,
        "status": "draft" if discussion.pull_request else "open",
        "isPullRequest": discussion.pull_request,
        "repo": {"name": repo.id, "type": repo.kind},
    }
