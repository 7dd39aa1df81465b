"""Uploading by the model and in training, through the double of the Hub."""

import json
import logging
from pathlib import Path

import pytest
from builders import rows, tiny_resnet
from fake_hub import Fault
from transformers import ViTImageProcessorPil
from transformers.trainer_utils import get_last_checkpoint

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError

BRANCH = ("config.json", "model.safetensors", "preprocessor_config.json")
MODEL = {*BRANCH, *(f"auxiliary/{name}" for name in BRANCH), "advbn_config.json"}


def titles(client):
    return [commit.title for commit in client.api().list_repo_commits("me/digits")]


def test_model_push_to_hub(client, tmp_path):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig(epsilon=0.5))
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    model.push_to_hub("digits", processor, commit_message="first")
    assert client.files("me/digits").keys() == MODEL | {"README.md"}
    assert titles(client) == ["first", "initial commit"]
    assert json.loads(client.files("me/digits")["advbn_config.json"])["epsilon"] == 0.5
    with pytest.raises(InputError, match="push_to_hub"):
        model.save_pretrained(tmp_path, push_to_hub=True)


def trainer_for(folder, **settings):
    args = AdvBNTrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=4,
        save_steps=2,
        use_cpu=True,
        report_to="none",
        push_to_hub=True,
        hub_model_id="me/digits",
        **settings,
    )
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    return AdvBNTrainer(model, args, train_dataset=rows(16))


def test_trainer_pushes_at_the_end_in_one_commit(client, tmp_path):
    trainer = trainer_for(tmp_path / "run", hub_strategy="end", hub_private_repo=True)
    trainer.train()
    trainer.save_model()
    assert client.store.repos == {}
    (tmp_path / "run" / "README.md").write_text("---\ntags: [advbn]\n---\n# digits\n")
    client.faults.add(Fault("POST", "/commit/", status=500))
    with pytest.raises(ConnectionError, match=r"trainer\.push_to_hub\(\) continues"):
        trainer.push_to_hub()
    assert client.store.repos == {}
    trainer.push_to_hub()
    assert client.repo("me/digits").private
    assert len(client.repo("me/digits").commits) == 2
    expected = {name for name in MODEL if "preprocessor" not in name} | {"README.md"}
    assert client.files("me/digits").keys() == expected


def test_what_a_push_is_given(client, tmp_path):
    trainer = trainer_for(tmp_path / "run", hub_strategy="end")
    token = client.token("me")
    trainer.push_to_hub("The first", token=token, private=True)
    assert client.repo("me/digits").private
    client.repo("me/digits").private = False  # for others to read
    assert titles(client) == ["The first", "initial commit"]
    next(trainer.model.parameters()).data += 1
    upload = trainer.push_to_hub(blocking=False, revision="next")
    assert upload.result().commit_message == "End of training"
    assert titles(client) == ["The first", "initial commit"]
    assert client.files("me/digits", "next") != client.files("me/digits")
    with pytest.raises(InputError, match="token"):
        trainer.push_to_hub(token="hf_of_nobody")


def test_trainer_pushes_every_save_and_survives_a_failure(client, tmp_path):
    client.faults.add(Fault("POST", "/commit/", status=403))
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("advbn_hf.hub.upload").addHandler(handler)
    trainer = trainer_for(tmp_path / "run", hub_strategy="every_save", hub_always_push=True, save_total_limit=1)
    trainer.train()
    logging.getLogger("advbn_hf.hub.upload").removeHandler(handler)
    assert [message for message in messages if "checkpoint-2" in message and "me/digits" in message]
    assert titles(client) == ["Training in progress, step 4", "initial commit"]
    weights = Path(get_last_checkpoint(tmp_path / "run"), "model.safetensors").read_bytes()
    assert client.files("me/digits")["model.safetensors"] == weights
    assert not list((tmp_path / "run").glob(".upload-*"))


def test_trainer_stops_before_training_where_it_could_not_push(client, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", client.token("me", "read"))
    with pytest.raises(InputError, match="read"):
        trainer_for(tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="hf auth login"):
        trainer_for(tmp_path)
    assert client.store.repos == {}
