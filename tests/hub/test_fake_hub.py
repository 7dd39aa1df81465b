"""The double of the Hub, seen through the real clients: huggingface_hub in this process, the others in their own."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fake_hub import Fault
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, errors, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import httpx
from PIL import Image

BIG = bytes(range(1, 256)) * 42_000  # 10.7 MB without a zero: LFS for its size alone
CARD = "---\npipeline_tag: image-classification\nlibrary_name: transformers\ntags: [robust]\n---\n# A card\n"


@pytest.fixture
def api(hub):
    """A client that may write, and a repository of its user."""
    api = hub.api(hub.token("me"))
    api.create_repo("me/x")
    return api


def status_of(error):
    return error.value.response.status_code


def test_folder_goes_up_and_comes_down(hub, api, tmp_path):
    files = {"README.md": CARD.encode(), "auxiliary/model.safetensors": b"tiny", "big.txt": BIG, "empty.txt": b""}
    for name, data in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    done = api.upload_folder(repo_id="me/x", folder_path=tmp_path / "folder", commit_message="first")
    assert done.oid == api.repo_info("me/x").sha == hub.repo("me/x").refs["refs/heads/main"]
    assert hub.files("me/x") == files
    assert [c.title for c in api.list_repo_commits("me/x")] == ["first", "initial commit"]
    assert sorted(api.list_repo_files("me/x")) == [".gitattributes", *sorted(files)]
    top = [".gitattributes", "README.md", "auxiliary", "big.txt", "empty.txt"]
    assert [e.path for e in api.list_repo_tree("me/x")] == top
    lfs = {s.rfilename for s in api.model_info("me/x", files_metadata=True).siblings if s.lfs}
    assert lfs == {"auxiliary/model.safetensors", "big.txt"}
    assert [e.path for e in api.get_paths_info("me/x", ["auxiliary", "big.txt", "none"])] == ["auxiliary", "big.txt"]
    info = api.model_info("me/x")
    assert (info.pipeline_tag, info.tags, info.card_data.tags) == ("image-classification", ["robust"], ["robust"])

    snapshot = api.snapshot_download("me/x", cache_dir=tmp_path / "cache")
    for name, data in files.items():
        assert Path(snapshot, name).read_bytes() == data
    with pytest.raises(errors.EntryNotFoundError):
        api.hf_hub_download("me/x", "none.txt")
    with pytest.raises(errors.RevisionNotFoundError):
        api.hf_hub_download("me/x", "big.txt", revision="none")
    with pytest.raises(errors.EntryNotFoundError):
        list(api.list_repo_tree("me/x", "none"))


def test_uploading_again_sends_only_what_changed(hub, api, tmp_path):
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    first = api.upload_folder(repo_id="me/x", folder_path=tmp_path)
    assert api.upload_folder(repo_id="me/x", folder_path=tmp_path).oid == first.oid
    (tmp_path / "a.txt").write_text("2")
    api.upload_folder(repo_id="me/x", folder_path=tmp_path)
    assert [seen.token for seen in hub.requests if seen.method == "PUT"] == [None]  # once, and no token to the storage
    assert hub.files("me/x") == {"a.txt": b"2", "w.safetensors": b"weights"}
    assert hub.files("me/x", first.oid)["a.txt"] == b"1"


def test_commits_are_all_or_nothing(hub, api):
    add = lambda name: CommitOperationAdd(name, b"1")  # noqa: E731
    first = api.create_commit("me/x", [add("a.txt"), add("d/b.txt"), add("d/c.txt")], commit_message="one")
    with pytest.raises(errors.EntryNotFoundError):
        api.create_commit("me/x", [add("n.txt"), CommitOperationDelete("none.txt")], commit_message="two")
    assert api.repo_info("me/x").sha == first.oid
    deletions = [CommitOperationDelete("d/"), CommitOperationDelete("a.txt")]
    api.create_commit("me/x", [add("n.txt"), *deletions], commit_message="two", parent_commit=first.oid[:9])
    assert hub.files("me/x") == {"n.txt": b"1"}
    with pytest.raises(errors.HfHubHTTPError) as error:
        api.create_commit("me/x", [add("late.txt")], commit_message="three", parent_commit=first.oid)
    assert status_of(error) == 412
    assert hub.files("me/x") == {"n.txt": b"1"}


def test_etag_range_and_head(hub, api):
    api.create_commit("me/x", [CommitOperationAdd("w.safetensors", b"0123456789")], commit_message="weights")
    url = hf_hub_url("me/x", "w.safetensors", endpoint=hub.endpoint)
    metadata = get_hf_file_metadata(url)
    blob = hub.repo("me/x").commit("main").files["w.safetensors"]
    assert (metadata.etag, metadata.size, metadata.commit_hash) == (blob.sha256, 10, api.repo_info("me/x").sha)
    for wanted, part in {"bytes=2-4": b"234", "bytes=7-": b"789", "bytes=-2": b"89"}.items():
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": wanted})) as response:
            assert (response.status, response.read()) == (206, part)
    with pytest.raises(urllib.error.HTTPError, match="416"):
        urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=10-"}))


def test_lfs_takes_only_the_bytes_that_were_promised(hub, api):
    url = f"{hub.endpoint}/me/x.git/info/lfs/objects/batch"
    objects = [{"oid": "0" * 64, "size": 3}]
    body = {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256", "objects": objects}
    batch = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": f"Bearer {api.token}"})
    with urllib.request.urlopen(batch) as response:
        upload = json.load(response)["objects"][0]["actions"]["upload"]["href"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(upload, b"abc", method="PUT"))
    assert hub.repo("me/x").lfs == {}


def test_repositories_are_made_once_and_deleted(hub, api):
    assert api.create_repo("me/x", exist_ok=True).repo_id == "me/x"
    assert api.create_repo("y", repo_type="dataset").repo_id == "me/y"
    assert api.create_repo("s", repo_type="space", space_sdk="static").repo_id == "me/s"
    with pytest.raises(errors.HfHubHTTPError) as error:
        api.create_repo("me/x")
    assert status_of(error) == 409
    api.delete_repo("me/y", repo_type="dataset")
    assert not api.repo_exists("me/y", repo_type="dataset")


def test_branches_tags_and_pull_requests(hub, api):
    main = api.repo_info("me/x").sha
    api.create_branch("me/x", branch="side/way")
    api.create_branch("me/x", branch="side/way", exist_ok=True)
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id="me/x", revision="side/way")
    api.create_tag("me/x", tag="v1", revision="side/way")
    pull = api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="me/x", create_pr=True)
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    asked = api.create_pull_request("me/x", "another")
    api.upload_file(path_or_fileobj=b"3", path_in_repo="a.txt", repo_id="me/x", revision=asked.git_reference)

    assert api.repo_info("me/x").sha == main
    contents = {r: hub.files("me/x", r).get("a.txt") for r in ("main", "side/way", "v1", "refs/pr/1", "refs/pr/2")}
    assert contents == {"main": None, "side/way": b"1", "v1": b"1", "refs/pr/1": b"2", "refs/pr/2": b"3"}
    assert Path(api.hf_hub_download("me/x", "a.txt", revision="refs/pr/1")).read_bytes() == b"2"
    refs = api.list_repo_refs("me/x", include_pull_requests=True)
    assert [r.name for r in refs.branches] == ["main", "side/way"]
    assert [r.name for r in refs.tags] == ["v1"]
    assert [d.num for d in api.get_repo_discussions("me/x")] == [1, 2]
    with pytest.raises(errors.RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id="me/x", revision="none")
    with pytest.raises(errors.BadRequestError):
        api.create_branch("me/x", branch="refs/pr/9")
    api.delete_branch("me/x", branch="side/way")
    api.delete_tag("me/x", tag="v1")
    assert hub.repo("me/x").refs.keys() == {"refs/heads/main", "refs/pr/1", "refs/pr/2"}


def test_who_may_read_and_write(hub, api):
    reader, other, nobody = hub.api(hub.token("me", "read")), hub.api(hub.token("you")), hub.api()
    wrong = hub.api("hf_wrong")
    assert (api.whoami()["name"], reader.whoami()["auth"]["accessToken"]["role"]) == ("me", "read")
    with pytest.raises(errors.HfHubHTTPError, match="Invalid user token"):
        wrong.whoami()
    upload = {"path_or_fileobj": b"1", "path_in_repo": "a.txt", "repo_id": "me/x"}
    for client, status in ((reader, 403), (other, 403), (nobody, 401), (wrong, 401)):
        with pytest.raises(errors.HfHubHTTPError) as error:
            client.upload_file(**upload)
        assert status_of(error) == status
    with pytest.raises(errors.HfHubHTTPError) as error:
        reader.create_repo("me/new")
    assert status_of(error) == 403
    assert hub.files("me/x") == {}
    assert other.upload_file(**upload, create_pr=True).pr_num == 1

    api.upload_file(**upload)
    api.update_repo_settings("me/x", gated="auto")
    for client, status in ((other, 403), (nobody, 401)):
        with pytest.raises(errors.GatedRepoError) as error:
            client.hf_hub_download("me/x", "a.txt")
        assert status_of(error) == status
    hub.repo("me/x").granted.add("you")
    assert other.hf_hub_download("me/x", "a.txt")

    api.update_repo_settings("me/x", private=True, gated=False)
    assert reader.model_info("me/x").private
    for client, status in ((other, 404), (nobody, 401)):  # as on the Hub, where both mean "no such repository"
        with pytest.raises(errors.RepositoryNotFoundError) as error:
            client.model_info("me/x")
        assert status_of(error) == status


@pytest.mark.parametrize("metadata", ["tags: robust", "a: [", "- a"])
def test_card_with_bad_metadata_is_refused(hub, api, metadata):
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(path_or_fileobj=f"---\n{metadata}\n---\n".encode(), path_in_repo="README.md", repo_id="me/x")
    assert hub.files("me/x") == {}


def test_card_without_metadata_is_taken_with_a_warning(hub, api):
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        api.upload_file(path_or_fileobj=b"# Only text\n", path_in_repo="README.md", repo_id="me/x")
    assert hub.files("me/x") == {"README.md": b"# Only text\n"}


def test_what_is_missing_is_answered_501(hub):
    with pytest.raises(errors.HfHubHTTPError, match="no route for GET /api/daily_papers"):
        list(hub.api().list_daily_papers())
    with pytest.raises(errors.HfHubHTTPError, match="expand"):
        hub.api(hub.token()).create_repo("me/x") and hub.api().model_info("me/x", expand=["downloads"])
    assert [gap.partition("?")[0] for gap in hub.gaps] == ["GET /api/daily_papers", "GET /api/models/me/x"]
    hub.requests.clear()


@pytest.mark.parametrize("status", [401, 403, 404, 409, 412, 500, 503])
def test_fault_with_a_status(hub, api, status):
    hub.faults.add(Fault("POST", "/commit/main", status=status))
    with pytest.raises(errors.HfHubHTTPError) as error:
        api.create_commit("me/x", [CommitOperationAdd("a.txt", b"1")], commit_message="one")
    assert status_of(error) == status
    assert hub.files("me/x") == {}


def test_fault_happens_as_often_as_asked(hub, api):
    hub.faults.add(Fault("GET", "/api/models/me/x$", status=404, times=2))
    assert [api.repo_exists("me/x") for _ in range(3)] == [False, False, True]
    hub.faults.add(Fault("GET", "/api/models/me/x$", status=404, times=None))
    assert not any(api.repo_exists("me/x") for _ in range(3))


def upload_weights(api):
    api.create_commit("me/x", [CommitOperationAdd("w.safetensors", BIG)], commit_message="one")


@pytest.mark.parametrize(("cut", "statuses"), [("request", [0, 200]), ("reply", [200, 200])])
def test_client_sends_weights_again_after_a_cut(hub, api, cut, statuses):
    hub.faults.add(Fault("PUT", "/lfs-storage/", cut=cut))
    upload_weights(api)
    assert hub.files("me/x") == {"w.safetensors": BIG}
    assert [seen.status for seen in hub.requests if seen.method == "PUT"] == statuses


def test_client_waits_when_it_asks_too_often(hub, api):
    hub.faults.add(Fault("POST", "/preupload/", status=429, headers={"Retry-After": "0"}))
    upload_weights(api)
    assert [seen.status for seen in hub.requests if "/preupload/" in seen.path] == [429, 200]


@pytest.mark.parametrize(("cut", "files"), [("request", {}), ("reply", {"a.txt": b"1"})])
def test_commit_whose_connection_is_cut_happened_or_not(hub, api, cut, files):
    hub.faults.add(Fault("POST", "/commit/", cut=cut))
    with pytest.raises(httpx.TransportError):
        api.create_commit("me/x", [CommitOperationAdd("a.txt", b"1")], commit_message="one")
    assert hub.files("me/x") == files


def test_download_resumes_after_a_cut(hub, api):
    upload_weights(api)
    hub.faults.add(Fault("GET", "/resolve/", cut="reply"))
    assert Path(api.hf_hub_download("me/x", "w.safetensors")).read_bytes() == BIG
    assert sum(seen.method == "GET" for seen in hub.requests) == 2


def test_slow_reply_and_deciding_function(hub, api):
    asked = []
    hub.faults.add(lambda method, path: asked.append((method, path)) or Fault(method, path, delay=0.5))
    with pytest.raises(httpx.TimeoutException):
        api.model_info("me/x", timeout=0.1)
    assert api.model_info("me/x", timeout=10).sha
    assert asked == [("GET", "/api/models/me/x")] * 2


PUSH = """
import sys
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification
config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3)
model = ResNetForImageClassification(config)
model.push_to_hub("me/tiny")
ConvNextImageProcessorPil(size={"shortest_edge": 32}).push_to_hub("me/tiny")
model.save_pretrained(sys.argv[1])
"""

LOAD = """
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
model = AutoModelForImageClassification.from_pretrained("me/tiny").eval()
auxiliary = AutoModelForImageClassification.from_pretrained("me/tiny", subfolder="auxiliary").eval()
assert all(torch.equal(a, b) for a, b in zip(model.parameters(), auxiliary.parameters(), strict=True))
assert AutoImageProcessor.from_pretrained("me/tiny").size["shortest_edge"] == 32
from PIL import Image
print(len(pipeline(model="me/tiny")(Image.new("RGB", (40, 40)))))
"""


@pytest.mark.slow
def test_transformers(hub, tmp_path):
    token = hub.token()
    pushed = hub.run(["-c", PUSH, tmp_path], token=token)
    assert pushed.returncode == 0, pushed.stderr
    hub.api(token).upload_folder(repo_id="me/tiny", folder_path=tmp_path, path_in_repo="auxiliary")
    card = hub.api(token).upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id="me/tiny")
    assert card.oid == hub.api().model_info("me/tiny").sha
    hub.requests.clear()
    loaded = hub.run(LOAD, home="elsewhere")
    assert (loaded.returncode, loaded.stdout) == (0, "3\n"), loaded.stderr
    assert {seen.token for seen in hub.requests} == {None}


DATASETS_PUSH = """
from datasets import ClassLabel, Dataset, Features, Image as ImageFeature
from PIL import Image
features = Features({"image": ImageFeature(), "label": ClassLabel(names=["dark", "light"])})
rows = {"image": [Image.new("RGB", (8, 8), (c, c, c)) for c in (0, 255)], "label": [0, 1]}
Dataset.from_dict(rows, features=features).push_to_hub("me/images", split="train")
"""

DATASETS_LOAD = """
from datasets import load_dataset
for repo, split in (("me/images", "train"), ("me/folder", "test")):
    data = load_dataset(repo, split=split)
    print(data.features["label"].names, [row["image"].getpixel((0, 0))[0] for row in data], list(data["label"]))
"""


def test_datasets(hub, tmp_path):
    token = hub.token()
    pushed = hub.run(DATASETS_PUSH, token=token)
    assert pushed.returncode == 0, pushed.stderr
    for name, level in (("dark", 0), ("light", 255)):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / "test" / name / "image.png")
    hub.api(token).create_repo("me/folder", repo_type="dataset")
    hub.api(token).upload_folder(repo_id="me/folder", repo_type="dataset", folder_path=tmp_path)
    loaded = hub.run(DATASETS_LOAD, home="elsewhere")
    assert loaded.stdout == "['dark', 'light'] [0, 255] [0, 1]\n" * 2, loaded.stderr
