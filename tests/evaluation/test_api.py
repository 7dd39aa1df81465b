"""`evaluate_suite`: however a model is given, the same records; nothing is written that was not asked for."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import datasets
import evaluate_on_processes
import pytest
from builders import models_equal, save_digit_models, save_images, tiny_resnet
from processes import run_on_two

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError, evaluate_suite
from advbn_hf.backbones.loading import load_classifier, load_processor
from advbn_hf.evaluation import runner
from advbn_hf.evaluation.suites import load_suite
from advbn_hf.modeling import PlainForImageClassification

SMALL = {"sets": ["clean", "sketch"], "max_samples": 20}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Two models and an imagefolder."""
    folder = tmp_path_factory.mktemp("job")
    save_digit_models(folder)
    save_images(folder / "data" / "validation", [str(digit) for digit in range(10)], per_class=2)
    return folder


@pytest.fixture(scope="module")
def from_folders(job):
    return evaluate_suite(job / "advbn", "embedded", baseline=job / "plain", **SMALL)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def instances(job):
    models = {"model": AdvBNForImageClassification.from_pretrained(job / "advbn")}
    return models | {"baseline": load_classifier(job / "plain"), "processor": load_processor(job / "advbn")}


def test_instances_give_the_records_of_folders(job, from_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = instances(job)
    assert evaluate_suite(suite="embedded", **given, **SMALL) == from_folders
    assert evaluate_suite(suite=load_suite("embedded"), **given, **SMALL) == from_folders
    assert list(Path().iterdir()) == []
    assert models_equal(given["model"], AdvBNForImageClassification.from_pretrained(job / "advbn"))
    found = {(record.model, record.branch, record.set) for record in from_folders}
    columns = [("advbn", "clean"), ("advbn", "auxiliary"), ("advbn (mean of branches)", None), ("baseline", None)]
    assert found == {(*column, name) for column in columns for name in ("clean", "sketch")}


HUB = """
import json, sys
from dataclasses import asdict
from advbn_hf import evaluate_suite
records = evaluate_suite("me/advbn", baseline="me/plain", revision="main", sets=["clean", "sketch"], max_samples=20)
print(json.dumps([asdict(record) for record in records]))
"""


@pytest.mark.slow
def test_hub_ids_give_the_records_of_folders(hub, job, from_folders):
    token = hub.token("me")
    for name in ("advbn", "plain"):
        hub.api(token).create_repo(f"me/{name}")
        hub.api(token).upload_folder(repo_id=f"me/{name}", folder_path=job / name)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = hub.run(HUB, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [dataclasses.asdict(record) for record in from_folders]


@pytest.mark.slow
def test_models_without_branches(job):
    processor, backbone = load_processor(job / "plain"), load_classifier(job / "plain")
    plain = PlainForImageClassification.from_backbone(backbone, AdvBNConfig(auxiliary_norms=False))
    clean = {"sets": ["clean"], "max_samples": 20}
    given = [evaluate_suite(model, processor=processor, **clean) for model in (load_classifier(job / "plain"), plain)]
    assert given[0] == given[1]
    assert {(record.model, record.branch) for record in given[0]} == {("model", None)}
    named = evaluate_suite(str(job / "plain"), model_name="mine", **clean)
    assert [dataclasses.replace(record, model="model") for record in named] == given[0]
    assert {record.model for record in evaluate_suite(job / "plain", **clean)} == {"plain"}


def test_a_set_that_names_no_dataset_takes_the_overrides(job):
    records = evaluate_suite(job / "plain", "generic", sets=["clean"], overrides={"dataset": str(job / "data")})
    assert {(record.set, record.n) for record in records} == {("clean", 20)}


@pytest.mark.slow
def test_a_folder_keeps_what_was_computed(job, from_folders, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runner, "predict", lambda *a, f=runner.predict, **k: calls.append(1) or f(*a, **k))
    settings = {"output_dir": tmp_path / "out", **SMALL}
    assert evaluate_suite(job / "advbn", baseline=job / "plain", **settings) == from_folders
    assert len(calls) == 4
    assert evaluate_suite(**instances(job), **settings) == from_folders
    assert len(calls) == 4
    assert len(list((tmp_path / "out" / "predictions").glob("*.safetensors"))) == 4


def test_images_that_cannot_be_decoded_are_named_in_a_warning(job, tmp_path, caplog):
    shutil.copytree(job / "data", tmp_path / "data")
    (tmp_path / "data" / "validation" / "3" / "1.png").write_bytes(b"no image")
    settings = {"sets": ["clean"], "overrides": {"dataset": str(tmp_path / "data")}}
    with pytest.raises(InputError, match=r"set 'clean': row 7 "):
        evaluate_suite(job / "plain", "generic", **settings)
    with caplog.at_level(logging.WARNING, logger="advbn_hf"):
        records = evaluate_suite(job / "plain", "generic", skip_bad_images=True, **settings)
    assert {record.n for record in records} == {19}
    (warning,) = [message for message in caplog.messages if "1.png" in message]
    assert "clean" in warning


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"max_samples": 0}, "max_samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"suite": "imagnet"}, "suite: .*imagnet"),
        ({"sets": ["cleen"]}, "sets: .*'cleen'.*'clean'"),
        ({"suite": load_suite("embedded"), "overrides": {"split": "test"}}, "overrides"),
        ({"overrides": {"datasett": "x"}}, "overrides: .*'datasett'.*'dataset'"),
        ({"suite": "imagenet", "overrides": {"dataset": "x"}}, "dataset: "),
        ({"model": tiny_resnet(num_labels=10)}, "processor: "),
        ({"baseline": tiny_resnet(num_labels=10)}, "baseline_processor: "),
        ({"model": "no/such/folder"}, "no/such/folder"),
    ],
    ids=str,
)
def test_mistakes_come_before_any_work(job, tmp_path, monkeypatch, arguments, field):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments = {"model": job / "plain", "output_dir": tmp_path / "out"} | arguments
    with pytest.raises(InputError, match=field):
        evaluate_suite(**arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_processes_that_trained_together_evaluate_the_model_of_the_first(job, tmp_path):
    """Each has running statistics of its own last batch, and the first one's are saved."""
    run_on_two(evaluate_on_processes.main, job / "advbn", tmp_path)
    alone = evaluate_on_processes.evaluate(job / "advbn", rank=0)
    for name in ("0.json", "1.json"):
        assert json.loads((tmp_path / name).read_text()) == [dataclasses.asdict(record) for record in alone]
