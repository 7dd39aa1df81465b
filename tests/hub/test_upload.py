"""Uploading through the real client to the double of the Hub: what goes up, what stays, and what a failure leaves."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from builders import tiny_resnet
from fake_hub import Fault
from fake_hub.store import Commit
from transformers import ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.hub import files_to_upload, planned_changes, upload_checkpoint, upload_in_background

SECRET = "hf_plantedPlantedPlantedPlanted"
BRANCH = ("config.json", "model.safetensors", "preprocessor_config.json")
MODEL = {*BRANCH, *(f"auxiliary/{name}" for name in BRANCH), "advbn_config.json"}
ALL_FILES = MODEL | {"README.md", "results.json", "results.png", "samples.png", "training.png", ".eval_results/x.yaml"}
CARD = '---\nlibrary_name: transformers\n---\n# digits\n\npipeline(model="path/to/this/folder")\n'


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model as it was saved."""
    folder = tmp_path_factory.mktemp("saved")
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    AdvBNForImageClassification.from_backbone(tiny_resnet()).save_pretrained(folder, processor=processor)
    return folder


@pytest.fixture
def checkpoint(saved, tmp_path):
    """A run's folder: what belongs on the Hub, and what does not, with a token in it."""
    folder = tmp_path / "run"
    for path in saved.rglob("*.*"):
        (folder / path.relative_to(saved)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(saved)).write_bytes(path.read_bytes())
    (folder / "README.md").write_text(CARD)
    (folder / "results.json").write_text("[]\n")
    for name in ("results.png", "samples.png", "training.png"):
        (folder / name).write_bytes(b"\x89PNG\0" + name.encode())
    left = ("training_args.bin", "training_args.json", "optimizer.pt", "runs/events.out", "checkpoint-1/config.json")
    for name in (
        *left,
        ".eval_results/x.yaml",
        "base/model.safetensors",
        "model.bin",
        ".env",
        "auxiliary/rng_state.pth",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("- x\n" if name.endswith("yaml") else SECRET)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commits(hub, repo_id="me/digits", revision="main"):
    return [commit.title for commit in hub.api().list_repo_commits(repo_id, revision=revision)]


def test_one_commit_of_the_allow_list(client, checkpoint):
    before = contents(checkpoint)
    commit = upload_checkpoint(checkpoint, "me/digits")
    found = client.files("me/digits")
    assert found.keys() == ALL_FILES == {path.as_posix() for path in files_to_upload(checkpoint)}
    assert {name: data for name, data in found.items() if name != "README.md"} == {
        name: before[name] for name in ALL_FILES - {"README.md"}
    }
    assert found["README.md"].decode() == CARD.replace("path/to/this/folder", "me/digits")
    assert commits(client) == ["Upload AdvBN checkpoint", "initial commit"]
    assert commit.oid == client.api().model_info("me/digits").sha
    assert contents(checkpoint) == before
    assert not [data for data in found.values() if SECRET.encode() in data]


def test_again_changes_only_what_changed(client, checkpoint):
    upload_checkpoint(checkpoint, "me/digits")
    client.requests.clear()
    assert upload_checkpoint(checkpoint, "me/digits") is None
    assert {seen.method for seen in client.requests} == {"GET"}
    (checkpoint / "results.json").write_text("[1]\n")
    weights = checkpoint / "auxiliary" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    planned = [operation.path_in_repo for operation in planned_changes(checkpoint, "me/digits")]
    assert planned == ["auxiliary/model.safetensors", "results.json"]
    upload_checkpoint(checkpoint, "me/digits", commit_message="second")
    assert commits(client) == ["second", "Upload AdvBN checkpoint", "initial commit"]
    assert client.files("me/digits")["auxiliary/model.safetensors"] == weights.read_bytes()
    assert [seen.method for seen in client.requests].count("PUT") == 1


def test_files_of_others_stay_and_replaced_weights_go(client, checkpoint):
    upload_checkpoint(checkpoint, "me/digits")
    client.api(client.token()).upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="me/digits")
    model = AdvBNForImageClassification.from_pretrained(checkpoint)
    for name in ("model.safetensors", "auxiliary/model.safetensors"):
        (checkpoint / name).unlink()
    model.save_pretrained(checkpoint, max_shard_size="40KB")
    shards = {name for name in contents(checkpoint) if name.removeprefix("auxiliary/").startswith("model-")}
    assert len(shards) > 3
    upload_checkpoint(checkpoint, "me/digits")
    weights = {name for name in client.files("me/digits") if "model" in name}
    assert weights == shards | {"model.safetensors.index.json", "auxiliary/model.safetensors.index.json"}
    assert client.files("me/digits")["notes.txt"] == b"mine"


def test_branch_pull_request_and_private(client, checkpoint):
    upload_checkpoint(checkpoint, "digits", private=True)
    assert client.repo("me/digits").private
    (checkpoint / "results.json").write_text("[1]\n")
    upload_checkpoint(checkpoint, "me/digits", revision="next")
    (checkpoint / "results.json").write_text("[2]\n")
    assert upload_checkpoint(checkpoint, "me/digits", create_pr=True, private=True).pr_num == 1
    found = [client.files("me/digits", revision)["results.json"] for revision in ("main", "next", "refs/pr/1")]
    assert found == [b"[]\n", b"[1]\n", b"[2]\n"]
    with pytest.raises(InputError, match="revision"):
        upload_checkpoint(checkpoint, "me/digits", create_pr=True, revision="next")
    client.repo("me/digits").private = False
    with pytest.raises(InputError, match="public"):
        upload_checkpoint(checkpoint, "me/digits", private=True)


def broken(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "advbn_config.json").unlink(), "advbn_config.json"),
        (lambda folder: (folder / "auxiliary" / "config.json").unlink(), "auxiliary/config.json"),
        (lambda folder: (folder / "auxiliary" / "model.safetensors").unlink(), "auxiliary/model.safetensors"),
        (broken("README.md", f"see {SECRET}"), "README.md .*token"),
        (broken("results.json", f'["{Path.home()}/data"]'), "results.json .*folder"),
        (broken("README.md", "---\ntags: ['']\n---\n"), "tags"),
        (broken("README.md", "---\nmodel-index: 3\n---\n"), "model-index"),
        (broken("README.md", "---\na: [\n---\n"), "YAML"),
        (broken("README.md", "---\n- a\n---\n"), "mapping"),
    ],
)
def test_nothing_is_sent_of_a_folder_that_should_not_go_up(client, checkpoint, damage, message):
    damage(checkpoint)
    with pytest.raises(InputError, match=message) as error:
        upload_checkpoint(checkpoint, "me/digits")
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)
    assert client.requests == []


def test_an_index_cannot_smuggle_other_files(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../run/.env"}}))
    with pytest.raises(InputError, match="save"):
        files_to_upload(checkpoint)


@pytest.mark.parametrize("name", ["README.md", "results.json", "model.safetensors", "auxiliary", ".eval_results"])
def test_what_lies_elsewhere_is_not_sent(client, checkpoint, tmp_path, name):
    """A folder of somebody else's may hold a link to any file of this machine."""
    (checkpoint / name).rename(tmp_path / "elsewhere")
    (checkpoint / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"{name}.*link.*elsewhere") as error:
        upload_checkpoint(checkpoint, "me/digits")
    assert "\n" not in str(error.value)
    assert client.requests == []


def test_a_token_in_a_reply_is_not_repeated(client, checkpoint):
    told = {"X-Error-Message": f"{SECRET} may not do that"}
    client.faults.add(Fault("POST", "/commit/", status=400, headers=told))
    with pytest.raises(InputError, match=r"\*\*\* may not do that"):
        upload_checkpoint(checkpoint, "me/digits")


GATED = {"X-Error-Code": "GatedRepo"}
COMMIT, LFS, PREUPLOAD = ("POST", "/commit/"), ("PUT", "/lfs-storage/"), ("POST", "/preupload/")
INFO, TREE, CREATE = ("GET", "/api/models/me/digits$"), ("GET", "/tree/"), ("POST", "/repos/create")
FAULTS = [
    (COMMIT, {"status": 401}, InputError, "hf auth login"),
    (COMMIT, {"status": 403}, InputError, "write access to me"),
    (COMMIT, {"status": 403, "headers": GATED}, InputError, "access is restricted"),
    (COMMIT, {"status": 404}, InputError, "no such repository"),
    (COMMIT, {"status": 400}, InputError, "refuses"),
    (COMMIT, {"status": 409}, ConnectionError, "changed by somebody else"),
    (COMMIT, {"status": 412}, ConnectionError, "changed by somebody else"),
    (COMMIT, {"status": 429, "headers": {"Retry-After": "7"}}, ConnectionError, "wait 7 seconds"),
    (COMMIT, {"status": 500}, ConnectionError, "status 500"),
    (COMMIT, {"status": 503}, ConnectionError, "status 503"),
    (COMMIT, {"cut": "request"}, ConnectionError, "connection to the Hub failed"),
    (LFS, {"status": 403}, ConnectionError, "broke off"),
    (PREUPLOAD, {"status": 403}, InputError, "write access to me"),
    (INFO, {"status": 403, "headers": GATED}, InputError, "access is restricted"),
    (INFO, {"cut": "reply"}, ConnectionError, "connection to the Hub failed"),
    (TREE, {"status": 404}, InputError, "no such repository"),
    (("POST", "/validate-yaml"), {"status": 503}, ConnectionError, "status 503"),
]


@pytest.mark.parametrize("existing", [True, False], ids=["existing", "new"])
@pytest.mark.parametrize(("where", "fault", "kind", "told"), FAULTS)
def test_a_failure_leaves_the_repo_as_it_was(client, checkpoint, existing, where, fault, kind, told):
    before, local = None, contents(checkpoint)
    if existing:
        upload_checkpoint(checkpoint, "me/digits")
        before = client.files("me/digits")
        (checkpoint / "results.json").write_text("[1]\n")
        for weights in (checkpoint / "model.safetensors", checkpoint / "auxiliary" / "model.safetensors"):
            weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        (checkpoint / "README.md").write_text(CARD + "more\n")
        local = contents(checkpoint)
    client.faults.add(Fault(*where, **fault))
    with pytest.raises(kind, match=told) as error:
        upload_checkpoint(checkpoint, "me/digits")
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    assert ("model", "me/digits") in client.store.repos if existing else client.store.repos == {}
    assert not existing or client.files("me/digits") == before
    assert contents(checkpoint) == local
    upload_checkpoint(checkpoint, "me/digits")
    assert client.files("me/digits")["results.json"] == local["results.json"]


@pytest.mark.parametrize(("where", "left"), [(COMMIT, ALL_FILES), (CREATE, None)])
def test_a_reply_that_does_not_arrive(client, checkpoint, where, left):
    client.faults.add(Fault(*where, cut="reply"))
    with pytest.raises(ConnectionError, match="again"):
        upload_checkpoint(checkpoint, "me/digits")
    assert left == (client.files("me/digits").keys() if client.store.repos else None)
    assert (upload_checkpoint(checkpoint, "me/digits") is None) == (left is not None)
    assert client.files("me/digits").keys() == ALL_FILES


@pytest.mark.skipif(
    huggingface_hub.__version__.startswith("1."), reason="the client of huggingface_hub 1 does not retry"
)
def test_the_client_retries_by_itself(client, checkpoint, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    client.faults.add(
        Fault("GET", "/tree/", status=503),
        Fault("GET", "/tree/", status=429, headers={"Retry-After": "1"}),
        Fault(*LFS, cut="request"),
        Fault(*LFS, status=500),
        Fault(*COMMIT, delay=0.1),
    )
    upload_checkpoint(checkpoint, "me/digits")
    assert client.files("me/digits").keys() == ALL_FILES


def test_a_new_branch_goes_when_its_commit_fails(client, checkpoint):
    upload_checkpoint(checkpoint, "me/digits")
    (checkpoint / "results.json").write_text("[1]\n")
    client.faults.add(Fault(*COMMIT, status=500))
    with pytest.raises(ConnectionError):
        upload_checkpoint(checkpoint, "me/digits", revision="next")
    assert client.repo("me/digits").refs.keys() == {"refs/heads/main"}


def test_somebody_else_commits_meanwhile(client, checkpoint):
    upload_checkpoint(checkpoint, "me/digits")
    (checkpoint / "results.json").write_text("[1]\n")
    repo = client.repo("me/digits")
    head = repo.commit("main")
    late = Commit({**head.files, "late.txt": head.files["README.md"]}, head.oid, "you", "late")

    def commit_first(method, path):
        if "/preupload/" in path and late.oid not in repo.commits:
            repo.advance("refs/heads/main", late)

    client.faults.add(commit_first)
    with pytest.raises(ConnectionError, match="somebody else"):
        upload_checkpoint(checkpoint, "me/digits")
    assert repo.commit("main") is late
    upload_checkpoint(checkpoint, "me/digits")
    assert {"late.txt", "results.json"} <= client.files("me/digits").keys()


@pytest.mark.parametrize(
    ("who", "told"), [("nobody", "hf auth login"), ("read", "write access"), ("you", "write access")]
)
def test_who_may_upload(client, checkpoint, monkeypatch, who, told):
    if who == "nobody":
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", client.token("you") if who == "you" else client.token("me", "read"))
    with pytest.raises(InputError, match=told):
        upload_checkpoint(checkpoint, "me/digits")
    assert client.store.repos == {}


def test_a_snapshot_is_uploaded_whatever_becomes_of_the_folder(client, checkpoint, tmp_path):
    expected = (checkpoint / "model.safetensors").read_bytes()
    client.faults.add(Fault("GET", "/api/models/me/digits$", delay=0.3))
    job = upload_in_background(checkpoint, "me/digits")
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").write_bytes(b"other")
    job.result()
    assert client.files("me/digits")["model.safetensors"] == expected
