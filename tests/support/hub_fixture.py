"""The `hub` fixture: a local double of the Hugging Face Hub, and ways to use it with the real clients."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import huggingface_hub
import pytest
from fake_hub import HubDouble
from huggingface_hub import constants
from huggingface_hub.utils import close_session

# Settings of the person who runs the tests that would lead a client past the double.
FOREIGN = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME")
PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


class LocalHub(HubDouble):
    """The double, with a place for the homes of its clients.

    Args:
        folder: where homes are made; a client's home holds its cache.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def api(self, token: str | None = None) -> huggingface_hub.HfApi:
        """A client in this process; anonymous without a token."""
        return huggingface_hub.HfApi(endpoint=self.endpoint, token=token or False)

    def env(self, token: str | None = None, home: str = "home") -> dict[str, str]:
        """The environment for a client in another process, which reads it at import.

        Args:
            token: its login; None: anonymous.
            home: name of its `HF_HOME`; clients of the same home share a cache.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(FOREIGN) and name.lower() not in PROXIES
        }
        hub = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets counts downloads elsewhere
        }
        return kept | hub | ({"HF_TOKEN": token} if token else {})

    def run(
        self,
        code: str | Sequence[str | Path],
        token: str | None = None,
        home: str = "home",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python as a client.

        Args:
            code: Python source, or the arguments of the interpreter, e.g. `["recipes/evaluate.py", "--model", ...]`.
            token: see `env`.
            home: see `env`.
            env: any other variables.
            cwd: working folder.
            input: what it reads from its standard input.

        Returns:
            The finished process with its output as text; it is for the caller to check `returncode`.
        """
        arguments = ["-c", code] if isinstance(code, str) else [str(argument) for argument in code]
        variables = {**self.env(token, home), **(env or {})}
        return subprocess.run(
            [sys.executable, *arguments],
            env=variables,
            cwd=cwd,
            input=input,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A new double; the test fails if a request was not implemented or a fault never happened."""
    local = LocalHub(tmp_path_factory.mktemp("hub"))
    home = local.folder / "in_process"
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    close_session()  # a session that another test opened knows nothing of NO_PROXY
    yield local
    close_session()
    local.close()
    assert local.gaps == []
    assert local.faults.pending == []


@pytest.fixture
def client(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """The double as the Hub of this process, logged in as "me"."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    path = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")[2]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.endpoint}/{{repo_id}}{path}")
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # which keeps its address
    monkeypatch.setenv("HF_TOKEN", hub.token("me"))
    return hub
