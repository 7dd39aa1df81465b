"""The model card: what it says, what it leaves out, and what cannot get into it."""

import json
import re

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.training_args import OptimizerNames

from advbn_hf import AdvBNConfig, InputError
from advbn_hf.evaluation.records import P_VALUE, Record
from advbn_hf.hub.metadata import validate_metadata
from advbn_hf.reporting.accuracy_table import comparison_table
from advbn_hf.reporting.model_card import render_card, save_card

VALUES = {"clean": (0.98, 0.975, 0.96), "filters": (0.60, 0.75, 0.80), "sketch": (0.50, 0.51, 0.40)}
COLUMNS = (("baseline", None), ("advbn", "clean"), ("advbn", "auxiliary"))
RECORDS = [
    Record(model, name, None, None, branch, "accuracy", value, 500)
    for name, values in VALUES.items()
    for (model, branch), value in zip(COLUMNS, values, strict=True)
]


def card(records=RECORDS, **changes):
    arguments = {
        "model_name": "digits-advbn",
        "base_model": "microsoft/resnet-50",
        "dataset": "me/digits",
        "advbn_config": AdvBNConfig(epsilon=0.75).to_dict(),
        "training": {"learning_rate": 0.03, "bf16": False, "max_steps": None, "optim": OptimizerNames.SGD},
        "command": ["accelerate", "launch", "recipes/finetune.py"],
        "versions": {"torch": "2.13.0"},
    }
    return render_card(records, **arguments | changes)


def metadata(rendered):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", str(rendered), flags=re.DOTALL).group(1))


def test_metadata_has_every_set_and_branch_measured():
    content = metadata(card(license="apache-2.0"))
    assert content["base_model"] == "microsoft/resnet-50" and content["datasets"] == ["me/digits"]
    assert content["license"] == "apache-2.0" and content["metrics"] == ["accuracy"]
    assert content["library_name"] == "transformers" and content["pipeline_tag"] == "image-classification"
    assert {"advbn", "robustness", "image-classification"} <= set(content["tags"])
    (model,) = content["model-index"]
    found = {
        (result["dataset"]["config"], metric["name"]): metric["value"]
        for result in model["results"]
        for metric in result["metrics"]
    }
    assert model["name"] == "digits-advbn" and len(model["results"]) == 3
    assert found == {
        (name, f"accuracy ({branch} branch)"): value
        for name, (_, *values) in VALUES.items()
        for branch, value in zip(("clean", "auxiliary"), values, strict=True)
    }


def test_body_has_results_settings_command_and_code():
    text = card(table=comparison_table(RECORDS, ("filters", "sketch")), repo_id="me/digits-advbn").text
    assert "| filters | 500 | 60.0 [55.6, 64.2] | 75.0 [71.0, 78.6] | +15.0 |" in text
    assert "mean of 2 sets" in text and "| epsilon | 0.75 |" in text and r"| learning\_rate | 0.03 |" in text
    assert (
        "| bf16 | false |" in text
        and "| optim | sgd |" in text
        and r"max\_steps" not in text
        and "torch 2.13.0" in text
    )
    assert "```bash\naccelerate launch recipes/finetune.py\n```" in text
    assert "2009.08965" in text and "[microsoft/resnet-50](https://huggingface.co/microsoft/resnet-50)" in text
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for block in blocks:
        compile(block, "card", "exec")
    assert len(blocks) == 2 and all('"me/digits-advbn"' in block for block in blocks)
    assert 'subfolder="auxiliary"' in blocks[1]


def test_limits_come_from_the_measurements():
    limits = card().text.split("## Limits")[1]
    assert "lowest accuracy is 40.0 %, on sketch (AdvBN auxiliary)" in limits
    assert "No gain over the baseline on clean (AdvBN clean -0.5), clean (AdvBN auxiliary -2.0)" in limits
    assert "cannot tell from none on sketch (AdvBN clean +1.0)" in limits
    assert "differ, most on sketch: 51.0 % (AdvBN clean) and 40.0 % (AdvBN auxiliary)" in limits
    alone = card([record for record in RECORDS if record.branch == "clean"]).text
    assert "No baseline was measured" in alone and "branches differ" not in alone


def test_p_values_and_the_mean_of_branches_are_told_and_claimed_for_no_branch():
    paired = [Record("advbn", "filters", None, None, "clean", P_VALUE, 0.25, 500)]
    mean = [Record("advbn (mean of branches)", "filters", None, None, None, "accuracy", 0.9, 500)]
    rendered = card([*RECORDS, *paired, *mean])
    assert metadata(rendered)["metrics"] == ["accuracy"]
    assert metadata(rendered)["model-index"] == metadata(card())["model-index"]
    assert "the paired tests cannot tell from none on filters (AdvBN clean +15.0)" in rendered.text
    assert "+15.0 (p 0.250)" in rendered.text and "| AdvBN mean | gain |" in rendered.text
    assert "AdvBN mean: the mean of both branches' probabilities" in rendered.text
    assert "mean of both" not in card().text


def test_what_was_not_measured_is_absent():
    bare = card([], base_model=None, dataset="pets", advbn_config={}, training={}, command=[], versions={})
    content = metadata(bare)
    assert not {"model-index", "base_model", "datasets", "metrics", "license", "model_name"} & set(content)
    for absent in ("## Results", "## How it was made", ".png", "None", "gain", "Versions", "seed"):
        assert absent not in bare.text
    assert "not measured" in bare.text and "\n\n\n" not in bare.text


def test_only_images_that_are_there_are_shown():
    images = ("results.png", "samples.png", "training.png")
    for shown in images:
        text = card(images=[shown]).text
        assert [name for name in images if f"]({name})" in text] == [shown]


def test_names_cannot_inject():
    hostile = "{{ 7 * 7 }}{% raw %} <script>x</script> | a\n---\nlicense: mit\n# b [c](d) `e`"
    with pytest.raises(InputError, match="a line of text"):
        Record("advbn", hostile, None, None, "clean", "accuracy", 0.5, 10)
    records = [Record("advbn", hostile.replace("\n", " "), None, None, "clean", "accuracy", 0.5, 10)]
    rendered = card(
        records,
        model_name=hostile,
        base_model=hostile,
        dataset=hostile,
        training={hostile: hostile},
        command=["run", f"```\n{hostile}"],
        versions={"torch": hostile},
    )
    plain, content = metadata(card(records)), metadata(rendered)
    assert set(content) == set(plain) - {"base_model", "datasets"}
    assert "49" not in rendered.text and "{{ 7 * 7 }}" in rendered.text
    prose = re.sub(r"^```.*?^```$", "", rendered.text, flags=re.DOTALL | re.MULTILINE)
    assert "<script>" not in prose and "\nlicense" not in prose and "[c](d)" not in prose
    assert {line.replace(r"\|", "").count("|") for line in prose.splitlines() if line.startswith("| ")} == {3, 4}
    assert rendered.text.count("\n```") == 8  # four blocks: two of Python, the command, the citation


def test_paths_of_the_machine_and_tokens_stay_out(tmp_path):
    folder = tmp_path / "my model"
    folder.mkdir()
    token = "hf_plantedPlantedPlanted"
    rendered = card(
        base_model=str(folder),
        dataset="/srv/private files/cats",
        training={"data": str(folder), "hub_token": "secret", "note": token},
        command=[
            "run",
            f"--x={folder}",
            "--y",
            r"C:\Users\annabel\dogs",
            f"file://{folder}",
            "--url",
            "https://a.b/c/d",
            token,
        ],
        versions={"torch": f"2.0 @ file://{folder}/torch.whl"},
    )
    text = str(rendered)
    for secret in (str(tmp_path), tmp_path.name, "private files", "annabel", token, "secret", "srv"):
        assert secret not in text
    assert "run '--x=my model' --y dogs 'my model' --url https://a.b/c/d" in text
    assert not {"base_model", "datasets"} & set(metadata(rendered)) and "my model, fine-tuned on cats" in text


def test_a_table_with_private_names_is_made_public():
    records = [Record("advbn", "/home/annabel/cats", None, None, "clean", "accuracy", 0.5, 10)]
    for arguments in ({}, {"table": comparison_table(records, ["/home/annabel/cats"])}):
        text = str(card(records, **arguments))
        assert "annabel" not in text
        assert "| cats | 10 | 50.0" in text


def test_a_folder_is_not_taken_for_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "base").mkdir(parents=True)
    rendered = card(base_model="outputs/base")
    assert "base_model" not in metadata(rendered) and "\nbase, fine-tuned on" in rendered.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"license": "Apache License, Version 2"}, "license 'Apache License, Version 2'"),
        ({"license": ""}, "license"),
        ({"model_name": " "}, "name"),
        ({"repo_id": "not an id"}, "repo_id.*'not an id'"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        card(**changes)


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "value.*nan"), ("0.5", "number"), (True, "number")])
def test_metadata_values_are_numbers(value, message):
    result = EvalResult("image-classification", "me/digits", "digits", "accuracy", value)
    with pytest.raises(InputError, match=message):
        validate_metadata(ModelCardData(model_name="x", eval_results=[result]).to_dict())


def test_metadata_ids_are_ids():
    for ids, named in (({"base_model": "a b"}, "a b"), ({"datasets": ["me/digits", "a//b"]}, "a//b")):
        with pytest.raises(InputError, match=named):
            validate_metadata(ids)
    with pytest.raises(InputError, match="tags"):
        validate_metadata({"tags": [""]})


def test_saved_card_is_read_back(tmp_path):
    rendered = card(images=["results.png"])
    save_card(rendered, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    loaded = ModelCard.load(tmp_path / "README.md")
    assert json.dumps(loaded.data.to_dict()) == json.dumps(rendered.data.to_dict()) and loaded.text == rendered.text
