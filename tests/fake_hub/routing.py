"""From a request to the function that handles it."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from .store import Account, HubError, Store

# In templates: {kind} of an API address, {prefix} of a page's, and parts that the client percent-encodes.
FIELDS = {
    "kind": "(?:models|datasets|spaces)",
    "prefix": "(?:datasets/|spaces/)?",
    "repo_id": "[^/]+/[^/]+?",
    "path": ".+",
}


@dataclass(frozen=True)
class Request:
    """What a client asks; `path` is still percent-encoded."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    endpoint: str
    account: Account | None

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode(), keep_blank_values=True)

    def flag(self, name: str) -> bool:
        """Whether a query parameter is there and true."""
        return self.query.get(name, ["0"])[0].lower() in {"1", "true"}


@dataclass(frozen=True)
class Reply:
    """What the client gets; `body` other than bytes is sent as JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Reply]]] = []


def route(method: str, template: str) -> Callable:
    """Register a function of a store, a request and the template's fields, decoded, e.g. `{revision}`."""
    pattern = re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{FIELDS.get(m[1], '[^/]+')})", re.escape(template))

    def register(function: Callable[..., Reply]) -> Callable[..., Reply]:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


def dispatch(store: Store, request: Request) -> Reply:
    """Answer a request.

    Raises:
        HubError: what the route refuses, or 501 where there is no route.
    """
    method = "GET" if request.method == "HEAD" else request.method
    for wanted, pattern, function in ROUTES:
        if method == wanted and (match := pattern.fullmatch(request.path)):
            fields = {name: unquote(value) for name, value in match.groupdict().items()}
            if "kind" in fields:
                fields["kind"] = fields["kind"].removesuffix("s")
            if "prefix" in fields:
                fields["kind"] = fields.pop("prefix").removesuffix("s/") or "model"
            return function(store, request, **fields)
    raise HubError(501, f"the double of the Hub has no route for {request.method} {request.path}")
