"""Two hundred pushes to a Hub that fails at random: each arrives complete or changes nothing, and no token leaks.

`pytest -n 0 -rP --show-capture stdout tests/hub/test_faults.py` prints what went wrong and how the pushes ended.
"""

import logging
import random
import re
import sys
import time
import traceback
from collections import Counter

import push_to_hub
import pytest
from builders import tiny_resnet
from fake_hub import Fault
from fake_hub.store import Account

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.hub import files_to_upload, upload_checkpoint

pytestmark = pytest.mark.slow

TOKEN = "hf_plantedPlantedPlantedPlanted"
PUSHES = 200
# Of ten requests one goes wrong, so that about half of the pushes do.
SHARE = 0.1
KINDS = {
    "refused with 400": {"status": 400},
    "refused with 401": {"status": 401},
    "refused with 403": {"status": 403},
    "behind a gate": {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}},
    "refused with 404": {"status": 404},
    "refused with 409": {"status": 409},
    "refused with 412": {"status": 412},
    "too many requests": {"status": 429, "headers": {"Retry-After": "1"}},
    "failed with 500": {"status": 500},
    "failed with 503": {"status": 503},
    "cut in the request": {"cut": "request"},
    "cut in the reply": {"cut": "reply"},
    "slow": {"delay": 0.02},
    "slow and failed": {"delay": 0.02, "status": 502},
    "slow and cut": {"delay": 0.02, "cut": "reply"},
}


@pytest.fixture
def log():
    """All that is logged, down to the clients' debugging."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("", "huggingface_hub", "advbn_hf")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield lines
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def planted(client, monkeypatch):
    """The double, whose user is logged in with the planted token; the clients' pauses are short."""
    client.store.accounts[TOKEN] = Account("me", "write")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.02)))
    return client


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with a card, and beside it what must stay here."""
    AdvBNForImageClassification.from_backbone(tiny_resnet()).save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "README.md").write_text("---\ntags: [advbn]\n---\n# digits\n")
    (tmp_path / "run" / "optimizer.pt").write_text("stays")
    return tmp_path / "run"


def new_version(folder, number, draw):
    """Other results each time, and now and then other weights."""
    (folder / "results.json").write_text(f"[{number}]\n")
    for path in folder.rglob("model.safetensors"):
        if draw.random() < 0.5:
            path.write_bytes(path.read_bytes()[:-4] + number.to_bytes(4, "little"))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def heads(hub, repo_id):
    """The commit of each branch and pull request of a repository, {} where there is none."""
    repo = hub.store.repos.get(("model", repo_id))
    return dict(repo.refs) if repo else {}


def outcome(hub, repo_id, before, expected):
    """What a push has made of a repository that had `before`; nothing but these two may be."""
    after = heads(hub, repo_id)
    if after == before:
        return "untouched"
    assert before.keys() <= after.keys()
    repo = hub.repo(repo_id)
    changed = [ref for ref in after if after[ref] != before.get(ref)]
    (ref,) = [ref for ref in changed if expected.items() <= hub.files(repo_id, ref).items()]
    assert set(changed) == {ref, *([] if before else ["refs/heads/main"])}
    assert repo.commits[after[ref]].parent in (before.get("refs/heads/main"), next(iter(repo.commits)))
    return "complete"


def push(monkeypatch, capsys, *arguments):
    """Runs the recipe; returns whether it succeeded, and all that it said, with the traceback of a failure."""
    monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *map(str, arguments)])
    try:
        push_to_hub.main()
    except (InputError, ConnectionError) as error:
        assert "\n" not in str(error)
        return False, "".join((*traceback.format_exception(error), *capsys.readouterr()))
    return True, "".join(capsys.readouterr())


def test_two_hundred_pushes(planted, folder, monkeypatch, capsys, log):
    draw, struck, outcomes, said = random.Random(0), [], Counter(), []
    asked = Counter()

    def fails_at_random(method, path):
        """Decides by what is asked, and how often it was, since uploads run side by side."""
        request = f"{number} {method} {re.sub('[0-9a-f]{32,}', 'x', path)}"
        asked[request] += 1
        of_request = random.Random(f"{request} {asked[request]}")
        if of_request.random() < SHARE:
            struck.append(of_request.choice(list(KINDS)))
            return Fault(method, path, **KINDS[struck[-1]])

    upload_checkpoint(folder, "me/digits")
    for number in range(PUSHES):
        new_version(folder, number, draw)
        local, expected = (
            contents(folder),
            {str(path): (folder / path).read_bytes() for path in files_to_upload(folder)},
        )
        repo_id = draw.choice(["me/digits", "me/digits", f"me/new{number}"])
        option = draw.choice([[], [], ["--revision", f"branch{number}"], ["--create_pr"]])
        before = heads(planted, repo_id)
        planted.faults.add(fails_at_random)
        succeeded, text = push(monkeypatch, capsys, "--checkpoint", folder, "--repo_id", repo_id, *option)
        planted.faults.clear()
        said.append(text)
        ended = outcome(planted, repo_id, before, expected)
        outcomes["succeeded" if succeeded else "failed", ended] += 1
        assert contents(folder) == local
        assert ended == "complete" or not succeeded

    print(f"{PUSHES} pushes, {len(struck)} requests that went wrong")
    for names in (outcomes, Counter(struck)):
        for name, count in sorted(names.items()):
            print(f"{count:5}  {name if isinstance(name, str) else ', '.join(name)}")
    assert set(struck) == set(KINDS)
    assert min(outcomes["succeeded", "complete"], outcomes["failed", "untouched"]) > PUSHES / 4

    told = [*said, *log, *(seen.path for seen in planted.requests)]
    kept = [data for repo in planted.store.repos.values() for data in repo.lfs.values()]
    kept += [
        blob.data
        for repo in planted.store.repos.values()
        for commit in repo.commits.values()
        for blob in commit.files.values()
    ]
    kept += [data for place in (folder.parent, planted.folder) for data in contents(place).values()]
    assert len(told) > 1000
    assert len(kept) > 1000
    assert any(seen.token == TOKEN for seen in planted.requests)
    assert not [text for text in told if TOKEN in text]
    assert not [data for data in kept if TOKEN.encode() in data]
    assert {path.name for path in folder.parent.iterdir()} == {"run"}
