"""Failures of the Hub as one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from ..errors import InputError, one_line
from .metadata import TOKEN

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"
AGAIN = "running it again continues"


@contextmanager
def explained(repo_id: str, again: str = AGAIN) -> Iterator[None]:
    """Turns what the Hub's clients raise into one line.

    Args:
        repo_id: the repository that the block is about.
        again: how to resume when the cause is gone.

    Raises:
        InputError: what the user can fix: login, permission, id, branch, content.
        ConnectionError: anything else: the Hub refused for now, failed, or was not reached.
    """
    try:
        yield
    except InputError:
        raise
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _explanation(error, repo_id, again) from error


def _explanation(error: Exception, repo_id: str, again: str) -> Exception:
    detail = _one_line(getattr(error, "server_message", None) or error)
    if isinstance(error, HfHubHTTPError):
        return _of_response(error, repo_id, detail, again)
    if isinstance(error, LocalTokenNotFoundError):
        return InputError(f"{repo_id}: not logged in; {LOG_IN}; {again}")
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"{repo_id}: HF_HUB_OFFLINE disables the Hub; unset it, and {again}")
    if isinstance(error, ConnectionError | httpx.TransportError):
        return ConnectionError(f"{repo_id}: the connection to the Hub failed ({detail}); {again}")
    if isinstance(error, RuntimeError | httpx.HTTPError):  # of a large file that did not arrive
        cause = f"{detail}: {_one_line(error.__cause__)}" if error.__cause__ else detail
        return ConnectionError(f"{repo_id}: the upload broke off ({cause}); {again}")
    return InputError(f"{repo_id}: {detail}")


def _of_response(error: HfHubHTTPError, repo_id: str, detail: str, again: str) -> Exception:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{repo_id}: access is restricted; ask for it on the repository's page, then {LOG_IN}; {again}"
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{repo_id}: revision: {detail}; name a branch of the repository")
    if status == 401:
        return InputError(
            f"{repo_id}: the Hub does not know who is asking, or the token has expired; {LOG_IN}; {again}"
        )
    if status == 403:
        return InputError(
            f"{repo_id}: not allowed ({detail}); use a token with write access to {repo_id.split('/')[0]}, or propose "
            f"the change by create_pr; {again}"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return InputError(f"{repo_id}: there is no such repository, or it is hidden from this login; check the id")
    if status in (409, 412):
        return ConnectionError(f"{repo_id}: it was changed by somebody else at the same time; {again}")
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        when = f"wait {wait} seconds" if wait else "wait some minutes"
        return ConnectionError(f"{repo_id}: too many requests; {when}, then {again}")
    if status >= 500:
        return ConnectionError(f"{repo_id}: the Hub failed with status {status}; try again later, {again}")
    return InputError(f"{repo_id}: the Hub refuses the request ({detail})")


def _one_line(error: object) -> str:
    """The start of a message on one line, without anything that looks like a token."""
    return TOKEN.sub("***", one_line(error))[:300]
