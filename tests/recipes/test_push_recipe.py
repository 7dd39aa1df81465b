"""`recipes/push_to_hub.py` from outside: what it prints, what it sends, and how it ends."""

import re
import sys

import push_to_hub
import pytest
from builders import tiny_resnet
from fake_hub import Fault
from huggingface_hub import constants

from advbn_hf import AdvBNForImageClassification
from advbn_hf.utils.cli import run

SECRET = "hf_plantedPlantedPlantedPlanted"


@pytest.fixture
def push(client, monkeypatch, tmp_path, capsys):
    """Runs the recipe on a checkpoint as "me", and returns exit code, stdout and stderr."""
    folder = tmp_path / "run"
    AdvBNForImageClassification.from_backbone(tiny_resnet()).save_pretrained(folder)
    (folder / "README.md").write_text("---\ntags: [advbn]\n---\n# path/to/this/folder\n")
    (folder / "training_args.bin").write_text(SECRET)

    def recipe(*options, repo_id="me/digits"):
        arguments = ["--checkpoint", folder, "--repo_id", repo_id, *options]
        monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *map(str, arguments)])
        code = 0
        try:
            run(push_to_hub.main)
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        return code, out, [line for line in err.splitlines() if "|" not in line and line.strip()]

    recipe.folder = folder
    return recipe


def listed(out):
    """Path -> size, as a dry run prints them."""
    lines = [re.fullmatch(r" +([\d,]+|delete)  (\S+)", line) for line in out.splitlines()]
    return {line[2]: int(line[1].replace(",", "")) for line in lines if line}


def test_dry_run_lists_what_is_then_uploaded(push, hub):
    code, out, _ = push("--dry_run")
    assert (code, hub.store.repos) == (0, {})
    assert {seen.method for seen in hub.requests} == {"GET"}
    assert push()[:2] == (0, f"{push.folder} is on the Hub: {hub.endpoint}/me/digits/commit/{head(hub)}\n")
    assert listed(out) == {path: len(data) for path, data in hub.files("me/digits").items()}
    assert f"{sum(listed(out).values()):,}  bytes in {len(listed(out))} files" in out

    assert push()[1] == f"me/digits has all of {push.folder} already; nothing was sent\n"
    (push.folder / "README.md").write_text("# other\n")
    assert listed(push("--dry_run")[1]) == {"README.md": 8}
    assert hub.files("me/digits")["README.md"] != b"# other\n"


def head(hub):
    return hub.repo("me/digits").refs["refs/heads/main"]


def test_dry_run_without_the_hub(push, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out, _ = push("--dry_run")
    assert code == 0
    assert "not reached" in out
    assert "auxiliary/model.safetensors" in listed(out)


def test_options(push, hub):
    assert push("--private", "--revision", "next", repo_id="digits")[0] == 0
    assert hub.repo("me/digits").private
    assert hub.files("me/digits") == {}
    assert b"me/digits" in hub.files("me/digits", "next")["README.md"]
    assert "/discussions/1" in push("--create_pr")[1]
    assert hub.files("me/digits") == {}
    assert hub.files("me/digits", "refs/pr/1").keys() == hub.files("me/digits", "next").keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--repo_id", "not an id"], "not an id"),
        (["--token", SECRET], "token: "),
        ([f"--hub_token={SECRET}"], "hub_token: "),
        (["--dry"], "dry_run"),
        (["--create_pr", "--revision", "next"], "revision"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(push, hub, options, message):
    code, _, err = push(*options)
    assert (code, len(err), hub.store.repos) == (2, 1, {})
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert SECRET not in err[0]


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        ({"status": 403}, 2, "write access to me"),
        ({"status": 503}, 1, "status 503"),
        ({"cut": "request"}, 1, "connection"),
    ],
)
def test_faults_of_the_hub_are_one_line(push, hub, fault, expected, message):
    hub.faults.add(Fault("POST", "/commit/", **fault))
    code, _, err = push()
    assert (code, len(err), hub.store.repos) == (expected, 1, {})
    assert err[0].startswith("error: me/digits: ")
    assert message in err[0]
    assert push()[0] == 0
