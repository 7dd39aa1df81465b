"""`.eval_results` where the dataset is a benchmark on the Hub, and nowhere else."""

import logging

import pytest
import yaml
from huggingface_hub import constants, parse_eval_result_entries

from advbn_hf.evaluation.records import Record
from advbn_hf.reporting.eval_results import write_eval_results

RECORDS = [
    Record("advbn", "clean", None, None, "clean", "accuracy", 0.75, 40),
    Record("advbn", "clean", None, None, "auxiliary", "accuracy", 0.7, 40),
    Record("baseline", "clean", None, None, None, "accuracy", 0.6, 40),
    Record("advbn", "sketch", None, None, "clean", "accuracy", 0.5, 40),
]
EVAL = (
    "name: Digits\ntasks:\n  - {id: digits, config: default, split: test}\n  - {id: hard, config: hard, split: test}\n"
)


@pytest.fixture
def benchmark(hub, monkeypatch):
    """A dataset with an eval.yaml."""
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    api = hub.api(hub.token())
    api.create_repo("me/digits", repo_type="dataset")
    api.upload_file(path_or_fileobj=EVAL.encode(), path_in_repo="eval.yaml", repo_id="me/digits", repo_type="dataset")
    api.create_repo("me/plain", repo_type="dataset")
    return api


def test_results_of_a_benchmark_are_read_back_by_the_client(benchmark, tmp_path):
    path = write_eval_results(tmp_path, RECORDS, "me/digits", split="test")
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    found = [(entry.dataset_id, entry.task_id, entry.value, entry.notes) for entry in entries]
    assert found == [("me/digits", "digits", 0.75, "clean branch"), ("me/digits", "digits", 0.7, "auxiliary branch")]
    assert path.relative_to(tmp_path).as_posix() == ".eval_results/me--digits.yaml"


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        ("me/plain", {"split": "test"}),
        ("me/digits", {"split": "train"}),
        ("me/digits", {"split": "test", "config": "x"}),
    ],
)
def test_nothing_is_written_of_what_is_no_benchmark(benchmark, tmp_path, dataset, settings):
    assert write_eval_results(tmp_path, RECORDS, dataset, **settings) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "tasks: [{id: !!python/object/apply:os.mkdir [ran]}]",
        "tasks: [",
        "[" * 100_000,
        "tasks: 3",
        "tasks: {a: b}",
        "tasks: [digits]",
        "tasks: [{config: default, split: test}]",
        "- a",
        "",
        "\x00\xff",
    ],
    ids=lambda content: content[:20],
)
def test_an_eval_file_of_strangers_does_not_end_a_run(benchmark, tmp_path, monkeypatch, caplog, content):
    monkeypatch.chdir(tmp_path)
    file = {"path_in_repo": "eval.yaml", "repo_id": "me/digits", "repo_type": "dataset"}
    benchmark.upload_file(path_or_fileobj=content.encode("latin-1"), **file)
    with caplog.at_level(logging.WARNING, logger="advbn_hf"):
        assert write_eval_results(tmp_path, RECORDS, "me/digits", split="test") is None
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("advbn_hf")]
    assert said.startswith("me/digits: no tasks can be read from its eval.yaml")
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []
