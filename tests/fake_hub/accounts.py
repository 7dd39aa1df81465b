"""Routes that are about no repository."""

from .routing import Reply, Request, route
from .store import HubError, Store


@route("GET", "/api/whoami-v2")
def whoami(store: Store, request: Request) -> Reply:
    if request.account is None:
        raise HubError(401, "Invalid username or password.")
    token = {"displayName": "test", "role": request.account.role}
    user = request.account.user
    auth = {"type": "access_token", "accessToken": token}
    return Reply({"type": "user", "id": user, "name": user, "fullname": user, "orgs": [], "auth": auth})


@route("GET", "/api/agent-harnesses")
def agent_harnesses(store: Store, request: Request) -> Reply:
    return Reply({"standardEnvVars": [], "harnesses": {}})
