"""Metadata of cards: the route that checks it, and the metadata of a repository's own card."""

from typing import Any

import yaml

from .routing import Reply, Request, route
from .store import Repo, Store

LISTS = {"datasets", "metrics", "tags"}  # metadata that must be lists of strings


@route("POST", "/api/validate-yaml")
def validate_yaml(store: Store, request: Request) -> Reply:
    """The Hub checks the metadata's types and syntax, and little of its meaning."""
    try:
        metadata = front_matter(request.json["content"])
    except yaml.YAMLError as error:
        return invalid([f"YAML: {error}"])
    if metadata is None:
        return Reply({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    if not isinstance(metadata, dict):
        return invalid(["YAML metadata must be a mapping"])
    errors = [
        f'"{name}" must be an array of strings'
        for name in sorted(LISTS & metadata.keys())
        if not isinstance(metadata[name], list) or not all(isinstance(entry, str) for entry in metadata[name])
    ]
    if "license" in metadata and not isinstance(metadata["license"], str | list):
        errors.append('"license" must be a string')
    if "model-index" in metadata and not isinstance(metadata["model-index"], list):
        errors.append('"model-index" must be an array')
    return invalid(errors) if errors else Reply({"errors": [], "warnings": []})


def invalid(messages: list[str]) -> Reply:
    """The reply to metadata with errors."""
    return Reply({"errors": [{"message": message} for message in messages], "warnings": []}, status=400)


def front_matter(text: str) -> Any:
    """The YAML between the `---` lines at the start of a card, None where there is none."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in [line.strip() for line in lines[1:]]:
        return None
    end = [line.strip() for line in lines].index("---", 1)
    return yaml.safe_load("\n".join(lines[1:end]))


def card_of(repo: Repo, revision: str) -> dict[str, Any]:
    """The metadata of a repository's card, empty where it has none that can be read."""
    card = repo.commit(revision).files.get("README.md")
    try:
        metadata = front_matter(card.data.decode()) if card else None
    except yaml.YAMLError:
        metadata = None
    return metadata if isinstance(metadata, dict) else {}
