"""HTTP in front of the store: reads requests, lets faults happen, writes replies."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs

from . import accounts, cards, contents, repos, uploads  # noqa: F401  (they register their routes)
from .faults import Fault, Faults
from .routing import Reply, Request, dispatch
from .store import Account, HubError, Repo, Store


@dataclass(frozen=True)
class Seen:
    """What was asked, with which token, and the status of the reply, 0 where the request was cut."""

    method: str
    path: str
    token: str | None
    status: int


class HubDouble:
    """A Hub on loopback, from construction to `close`.

    Attributes:
        endpoint: its address, for `HF_ENDPOINT` or `HfApi(endpoint=...)`.
        store: what is on it.
        faults: what shall go wrong; see `Fault`.
        requests: what was asked so far.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.faults = Faults()
        self.requests: list[Seen] = []
        self.lock = threading.Lock()  # one request at a time touches the store
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def token(self, user: str = "me", role: Literal["read", "write"] = "write") -> str:
        """A new token of a user."""
        token = f"hf_{role}{user}{len(self.store.accounts)}"
        self.store.accounts[token] = Account(user, role)
        return token

    def repo(self, repo_id: str, kind: str = "model") -> Repo:
        """A repository as it is, whoever may see it.

        Raises:
            KeyError: when there is none.
        """
        return self.store.repos[kind, repo_id]

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """Path and bytes of each file at a revision, without the `.gitattributes` that every repository has."""
        files = self.repo(repo_id, kind).commit(revision).files
        return {path: blob.data for path, blob in files.items() if path != ".gitattributes"}

    @property
    def gaps(self) -> list[str]:
        """Requests that the double does not implement."""
        return [f"{seen.method} {seen.path}" for seen in self.requests if seen.status == HTTPStatus.NOT_IMPLEMENTED]


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    hub: HubDouble
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def serve(self) -> None:
        fault = self.hub.faults.take(self.command, self.path)
        if fault and fault.delay:
            time.sleep(fault.delay)
        if fault and fault.cut == "request":
            next(self.read_body(), None)
            self.hub.requests.append(Seen(self.command, self.path, self.token, 0))
            self.hang_up()
            return
        body = b"".join(self.read_body())
        reply = refuse(fault) if fault and fault.status else self.reply(body)
        self.hub.requests.append(Seen(self.command, self.path, self.token, reply.status))
        try:
            self.send(reply, cut=fault is not None and fault.cut == "reply")
        except ConnectionError:  # the client did not wait
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815  (the names http.server calls)

    @property
    def token(self) -> str | None:
        return self.headers["Authorization"].removeprefix("Bearer ") if "Authorization" in self.headers else None

    def read_body(self) -> Iterator[bytes]:
        """The request's body in two halves, or in the client's own chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            length = int(self.headers.get("Content-Length", 0))
            yield self.rfile.read(length // 2)
            yield self.rfile.read(length - length // 2)

    def reply(self, body: bytes) -> Reply:
        path, _, query = self.path.partition("?")
        try:
            with self.hub.lock:
                account = self.hub.store.account(self.token)
                parsed = parse_qs(query, keep_blank_values=True)
                request = Request(self.command, path, parsed, self.headers, body, self.hub.endpoint, account)
                return dispatch(self.hub.store, request)
        except HubError as error:
            return Reply({"error": error.message}, error.status, error.headers)
        except (KeyError, TypeError, ValueError) as error:
            message = f"the double of the Hub does not understand {self.command} {path}: {error!r}"
            return Reply({"error": message}, HTTPStatus.NOT_IMPLEMENTED)

    def send(self, reply: Reply, cut: bool) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        half = b"" if self.command == "HEAD" else body[: len(body) // 2]
        if cut and not half:  # headers alone would be a complete reply
            self.hang_up()
            return
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut:
            self.wfile.write(half)
            self.hang_up()
        elif self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output free of requests; `HubDouble.requests` has them."""


def refuse(fault: Fault) -> Reply:
    """The reply to a request that a fault makes fail, with the headers by which clients tell errors apart."""
    status = HTTPStatus(fault.status)
    explained = {
        HTTPStatus.UNAUTHORIZED: {"X-Error-Message": "Invalid credentials in Authorization header"},
        HTTPStatus.NOT_FOUND: {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"},
    }
    headers = explained.get(status, {"X-Error-Message": status.phrase}) | fault.headers
    return Reply({"error": headers.get("X-Error-Message", status.phrase)}, status, headers)
