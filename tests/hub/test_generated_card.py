"""The card that a model gets when nobody has written one: what it says, and what it leaves out."""

import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from builders import rows, tiny_convnext, tiny_resnet
from cards import HUB, on_hub, row, wrapped
from trainers import trainer_of
from transformers import TrainerCallback, ViTImageProcessorPil

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError
from advbn_hf.hub.metadata import validate_metadata
from advbn_hf.modeling import PlainForImageClassification

ROOT = Path(__file__).parents[2]


def metadata(card):
    content = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)[1])
    validate_metadata(content)
    return content


def put_plain_model(client, folder):
    """A model that knows nothing of us, as me/plain."""
    tiny_resnet().save_pretrained(folder / "plain")
    api = client.api(client.token())
    api.create_repo("me/plain")
    api.upload_folder(repo_id="me/plain", folder_path=folder / "plain")


def limits_of(card):
    return card.split("## Limits")[1].split("## Citation")[0]


def test_a_model_alone_says_what_it_is_and_claims_no_more(client):
    wrapped(epsilon=0.75).push_to_hub("digits", ViTImageProcessorPil(size={"height": 32, "width": 32}))
    card = on_hub(client)
    content = metadata(card)
    assert (content["library_name"], content["pipeline_tag"]) == ("transformers", "image-classification")
    assert "advbn" in content["tags"]
    assert not {"base_model", "datasets", "license", "metrics", "model-index", "language"} & set(content)
    assert "# digits\n" in card
    assert row(card, "epsilon") == ["0.75"]
    assert card.count('"me/digits"') == 3
    assert f"torch {version('torch')}" in card
    for claim in ("fine-tuned", "| Training |", "## Results", "Measured", "image processor was saved"):
        assert claim not in card
    assert "accuracy is not recorded" in limits_of(card)
    for block in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        compile(block, "card", "exec")


def test_a_run_says_what_was_measured(client, tmp_path):
    trainer = trainer_of(tmp_path, weight_decay=0.25, **HUB)
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()
    trainer.push_to_hub()
    card = on_hub(client)
    content = metadata(card)
    assert "model-index" not in content  # on which dataset is not known
    assert ", fine-tuned with [Adversarial" in card
    assert row(card, "eval: accuracy") == [
        f"{metrics[f'eval_{name}_accuracy']:.4g}" for name in ("clean", "auxiliary")
    ]
    assert row(card, "eval: loss") == [f"{metrics['eval_loss']:.4g}", ""]
    assert row(card, r"weight\_decay") == ["0.25"]
    assert row(card, "steps") == ["4"]
    assert "were not measured" not in limits_of(card)
    assert (tmp_path / "README.md").read_text().replace("path/to/this/folder", "me/digits").splitlines()[:-1] == (
        card.splitlines()[:-1]
    )


def test_every_set_that_was_evaluated_last_has_its_line(tmp_path):
    trainer = trainer_of(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer.eval_dataset = {"clean": rows(20), "dark": rows(12, seed=1)}
    trainer.train()
    metrics = trainer.state.log_history
    trainer.save_model()
    card = (tmp_path / "README.md").read_text()
    for name in ("eval_clean", "eval_dark"):
        log = [entry for entry in metrics if f"{name}_loss" in entry][-1]
        assert row(card, f"{name}: accuracy".replace("_", r"\_")) == [
            f"{log[f'{name}_{branch}_accuracy']:.4g}" for branch in ("clean", "auxiliary")
        ]


class EvaluatesOnce(TrainerCallback):
    """After the third step."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_evaluate = state.global_step == 3


def test_metrics_of_earlier_weights_are_called_so(tmp_path):
    trainer = trainer_of(tmp_path, max_steps=5, callbacks=[EvaluatesOnce()])
    trainer.train()
    trainer.create_model_card(dataset="me/digits")
    card = (tmp_path / "README.md").read_text()
    assert "after step 3" in card
    assert "were not measured" in limits_of(card)
    assert "model-index" not in metadata(card)


@pytest.mark.parametrize("evaluated_again", [False, True])
def test_the_best_model_has_its_own_metrics(tmp_path, evaluated_again):
    trainer = trainer_of(
        tmp_path,
        model=tiny_convnext(),
        max_steps=6,
        learning_rate=0.5,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # whose last is not the best, if anything is learnt
    )
    trainer.train()
    assert trainer.state.best_global_step < 6
    if evaluated_again:
        trainer.evaluate()
    trainer.save_model()
    card = (tmp_path / "README.md").read_text()
    best = [log for log in trainer.state.log_history if log["step"] == trainer.state.best_global_step]
    (loss,) = [log["eval_loss"] for log in best if "eval_loss" in log]
    assert row(card, "eval: loss") == [f"{loss:.4g}", ""]
    assert row(card, "steps") == [str(trainer.state.best_global_step)]
    assert "were not measured" not in limits_of(card)


GIVEN = {
    "finetuned_from": "microsoft/resnet-50",
    "tasks": "image-classification",
    "dataset": "me/birds",
    "dataset_args": "small",
    "tags": ["vision", "advbn"],
    "license": "apache-2.0",
    "language": "en",
    "model_name": "Birds",
}


def test_what_a_person_says_is_in_the_card_from_then_on(client, tmp_path):
    trainer = trainer_of(tmp_path, **HUB)
    trainer.train()
    metrics = trainer.evaluate()
    trainer.push_to_hub(**GIVEN)
    trainer.create_model_card(license="mit")
    trainer.push_to_hub(commit_message="again")
    card = on_hub(client)
    content = metadata(card)
    assert content["base_model"] == "microsoft/resnet-50"
    assert content["datasets"] == ["me/birds"]
    assert content["license"] == "mit"
    assert content["language"] == ["en"]
    assert content["tags"].count("advbn") == 1
    assert "vision" in content["tags"]
    assert "# Birds\n" in card
    assert "[me/birds](https://huggingface.co/datasets/me/birds) (small)" in card
    (model,) = content["model-index"]
    measured = {
        metric["name"]: metric["value"]
        for result in model["results"]
        for metric in result["metrics"]
        if metric["type"] == "accuracy"
    }
    assert measured == {
        f"accuracy ({branch} branch)": metrics[f"eval_{branch}_accuracy"] for branch in ("clean", "auxiliary")
    }


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"tasks": ["image-classification", "text-classification"]}, "tasks"),
        ({"license": "Apache License, Version 2"}, "license"),
        ({"license": ["mit"]}, "license"),
        ({"language": "Esperanto"}, "language"),
        ({"tags": ["vision", ""]}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"dataset_tags": "a//b"}, "datasets"),
        ({"dataset_args": "small"}, "dataset_args"),
        ({"dataset": ["me/birds", "me/cats"], "dataset_args": ["small"]}, "dataset_args"),
        ({"model_name": " "}, "model_name"),
    ],
)
def test_what_cannot_be_said_is_refused_before_any_work(client, tmp_path, given, field):
    trainer = trainer_of(tmp_path / "run", **HUB)
    with pytest.raises(InputError, match=field) as error:
        trainer.push_to_hub(**given)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").iterdir())
    assert client.store.repos == {}
    trainer.save_model()  # without it


def test_an_unknown_argument_is_an_error(tmp_path):
    with pytest.raises(TypeError, match="colour"):
        trainer_of(tmp_path).create_model_card(colour="red")


def test_the_base_is_a_repository_other_than_itself(client, tmp_path, monkeypatch):
    put_plain_model(client, tmp_path)
    model = AdvBNForImageClassification.from_backbone("me/plain")
    model.push_to_hub("me/digits")
    assert metadata(on_hub(client))["base_model"] == "me/plain"
    AdvBNForImageClassification.from_pretrained("me/digits").push_to_hub("digits")
    assert "base_model" not in metadata(on_hub(client))

    monkeypatch.chdir(tmp_path)
    tiny_resnet().save_pretrained("outputs/plain")
    local = AdvBNForImageClassification.from_backbone("outputs/plain")
    shutil.rmtree("outputs")
    local.save_pretrained("mine")
    assert "base_model" not in metadata((tmp_path / "mine" / "README.md").read_text())


def test_the_lines_of_the_readme_end_on_the_hub_with_a_card(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (code,) = [block for block in blocks if "push_to_hub" in block]
    put_plain_model(client, tmp_path)
    assert "microsoft/resnet-50" in code
    exec(code.replace("microsoft/resnet-50", "me/plain"), {"train": rows(8), "validation": rows(4)})
    card = client.files("me/mine")["README.md"].decode()
    assert metadata(card)["base_model"] == "me/plain"
    assert row(card, "steps") == ["3"]
    assert card.count('"me/mine"') == 3
    AdvBNForImageClassification.from_pretrained("me/mine")


def test_what_the_card_does_not_describe_has_none(tmp_path):
    model = PlainForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig(auxiliary_norms=False))
    args = AdvBNTrainingArguments(str(tmp_path / "plain"), max_steps=1, report_to="none", use_cpu=True)
    trainer = AdvBNTrainer(model, args, train_dataset=rows(8))
    trainer.train()
    trainer.save_model()
    with pytest.raises(InputError, match="PlainForImageClassification"):
        trainer.create_model_card(license="mit")
    assert not (tmp_path / "plain" / "README.md").exists()
    wrapped(auxiliary_norms=False).save_pretrained(tmp_path / "one")
    card = (tmp_path / "one" / "README.md").read_text()
    assert "differ in their norms" not in card
    assert "No image processor" in limits_of(card)
