"""Nothing that Windows lacks is used unguarded, so that the package imports there; and the tools' versions agree."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("advbn_hf", "recipes") for path in (ROOT / folder).rglob("*.py"))
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "getpgid", "geteuid", "getgid", "getuid", "killpg", "mkfifo", "nice", "pread", "pwrite"),
        *("posix_fadvise", "posix_fallocate", "sched_getaffinity", "sched_setaffinity", "setpgid", "setsid"),
        *("statvfs", "sysconf", "uname", "wait", "chown", "O_NOFOLLOW", "O_NONBLOCK", "WNOHANG", "getloadavg"),
    },
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm"},
}
NAMES = {f"{module}.{name}" for module, names in POSIX_NAMES.items() for name in names}


def posix_only(tree: ast.AST) -> set[str]:
    """What a file uses of POSIX alone, without asking `hasattr` for it."""
    found, guarded = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & POSIX_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} & POSIX_MODULES
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & NAMES
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {f"{node.value.id}.{node.attr}"} & NAMES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr":
            guarded.add(".".join(ast.unparse(argument).strip("'\"") for argument in node.args))
    return found - guarded


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_used_that_windows_lacks(path):
    assert not posix_only(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "code",
    ["import fcntl", "def f():\n  from pwd import getpwnam", "import os\nos.fork()", "from signal import SIGKILL"],
)
def test_what_windows_lacks_is_found(code):
    assert posix_only(ast.parse(code))


def test_what_is_asked_for_first_is_no_finding():
    assert not posix_only(ast.parse("import os\nif hasattr(os, 'fork'):\n  os.fork()"))


def test_pre_commit_runs_the_ruff_of_the_tests():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = [repo for repo in hooks if repo["repo"].endswith("/ruff-pre-commit")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"ruff=={ruff['rev'].removeprefix('v')}" in [text for text in extras["test"] if re.match("ruff", text)]
    assert {hook["id"] for hook in ruff["hooks"]} == {"ruff-check", "ruff-format"}
    assert [hook["id"] for repo in hooks if repo["repo"] == "local" for hook in repo["hooks"]] == ["pyrefly"]
