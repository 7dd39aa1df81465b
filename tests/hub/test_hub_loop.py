"""The complete loop through the double of the Hub, each step in its own process, as people would run it."""

import json
import re
from pathlib import Path

import finetune
import pytest
from fake_hub import Fault

pytestmark = pytest.mark.slow

RECIPES = Path(finetune.__file__).parent

PUBLISH = """
import numpy as np
from builders import tiny_resnet
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image as ImageFeature
from huggingface_hub import upload_file
from PIL import Image
from transformers import ViTImageProcessorPil
random = np.random.default_rng(0)
features = Features({"image": ImageFeature(), "label": ClassLabel(names=["ant", "bee", "cat"])})
def split(count):
    labels = [index % 3 for index in range(count)]
    images = [Image.fromarray(random.integers(80 * k, 80 * k + 90, (32, 32, 3), dtype=np.uint8)) for k in labels]
    return Dataset.from_dict({"image": images, "label": labels}, features=features)
DatasetDict(train=split(24), validation=split(12)).push_to_hub("me/insects")
eval = b"tasks: [{id: insects, config: default, split: validation}]"
upload_file(path_or_fileobj=eval, path_in_repo="eval.yaml", repo_id="me/insects", repo_type="dataset")
model = tiny_resnet(num_labels=3)
model.config.id2label = dict(enumerate(["ant", "bee", "cat"]))
model.config.label2id = {name: index for index, name in model.config.id2label.items()}
model.push_to_hub("me/plain")
ViTImageProcessorPil(size={"height": 32, "width": 32}).push_to_hub("me/plain")
"""

FINETUNE = """
--model_name_or_path me/plain --dataset_name me/insects --baseline true --max_steps 2 --per_device_train_batch_size 8
--logging_steps 1 --save_strategy steps --save_steps 1 --use_cpu true --report_to none
--push_to_hub true --hub_strategy every_save --hub_model_id me/insects-advbn --license apache-2.0
"""

EVALUATE = "--model me/insects-advbn --baseline me/plain --dataset_name me/insects --sets clean greyscale"

# What somebody has who never heard of this package; prints the logits of both branches.
ELSEWHERE = """
import sys
sys.modules["advbn_hf"] = None
import json, torch
from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
rows = load_dataset("me/insects", split="validation")
processor = AutoImageProcessor.from_pretrained("me/insects-advbn")
inputs = processor(rows["image"][:], return_tensors="pt")
logits = {}
for branch, where in (("clean", {}), ("auxiliary", {"subfolder": "auxiliary"})):
    model = AutoModelForImageClassification.from_pretrained("me/insects-advbn", **where)
    logits[branch] = model(**inputs).logits.argmax(-1).eq(torch.tensor(rows["label"][:])).float().mean().item()
classify = pipeline("image-classification", model="me/insects-advbn")
by_task = pipeline(model="me/insects-advbn")
labels = {answer["label"] for answer in classify(rows[0]["image"])}
assert labels == {answer["label"] for answer in by_task(rows[0]["image"])} == {"ant", "bee", "cat"}
print(json.dumps(logits))
"""

# With the package: a private repository at a revision by an explicit token, measured and trained further.
RESUME = """
import sys, json
from accelerate import Accelerator
from advbn_hf import AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, evaluate_suite
from advbn_hf.backbones.loading import load_processor
from advbn_hf.data.images import ImageDataset, collate
from advbn_hf.data.loading import load_images
from advbn_hf.data.transforms import EvaluationTransform
token, revision, output = sys.stdin.read().split()
model = AdvBNForImageClassification.from_pretrained("me/insects-advbn", revision=revision, token=token)
processor = load_processor("me/insects-advbn", token=token)
images = ImageDataset(load_images("me/insects", "validation"), EvaluationTransform(processor))
cpu = {"processor": processor, "accelerator": Accelerator(cpu=True)}
records = evaluate_suite(model, "generic", overrides={"dataset": "me/insects"}, sets=["clean"], **cpu)
print(json.dumps({r.branch: r.value for r in records if (r.model, r.metric) == ("advbn", "accuracy")}))
args = AdvBNTrainingArguments(
    output, max_steps=1, use_cpu=True, report_to="none", push_to_hub=True, hub_model_id="me/again", hub_token=token
)
trainer = AdvBNTrainer(model, args, train_dataset=images, data_collator=collate, processing_class=processor)
trainer.train()
trainer.push_to_hub()
trainer.push_to_hub(revision="refs/pr/9")
"""


@pytest.fixture
def run(hub, monkeypatch):
    """Runs Python with this package and the tests' builders; keeps all that is printed."""
    printed = []

    def run(code, code_expected=0, input=None, **options):
        path = f"{RECIPES.parent}:{RECIPES.parent / 'tests' / 'support'}"
        done = hub.run(
            code, env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, input=input, **options
        )
        printed.extend((done.stdout, done.stderr))
        assert done.returncode == code_expected, done.stderr
        return done

    run.printed = printed
    return run


def test_from_a_data_set_by_id_to_a_model_by_id(hub, run, tmp_path):
    token = hub.token("me")
    run(PUBLISH, token=token)
    output = tmp_path / "run"
    job = [RECIPES / "finetune.py", *FINETUNE.split(), "--output_dir", output]
    hub.faults.add(Fault("POST", "/api/models/me/insects-advbn/commit/", status=403))
    run(job, token=token)

    repo = hub.repo("me/insects-advbn")
    found = hub.files("me/insects-advbn")
    branch = {"config.json", "model.safetensors", "preprocessor_config.json"}
    beside = {
        ".eval_results/me--insects.yaml",
        "README.md",
        "results.json",
        "results.png",
        "samples.png",
        "training.png",
    }
    model = branch | {f"auxiliary/{name}" for name in branch} | {"advbn_config.json"}
    assert found.keys() == model | beside
    assert repo.commit("main").title == "End of training"
    assert found == {name: (output / name).read_bytes() for name in found}
    card = found["README.md"].decode()
    assert "base_model: me/plain" in card
    assert "license: apache-2.0" in card
    assert "- me/insects\n" in card
    assert card.count('"me/insects-advbn"') == 3

    records = json.loads(found["results.json"])
    ours = {"model": "advbn", "metric": "accuracy"}
    measured = {record["branch"]: record["value"] for record in records if ours.items() <= record.items()}
    loaded = run(ELSEWHERE, home="elsewhere")
    assert json.loads(loaded.stdout) == pytest.approx(measured)

    run([RECIPES / "evaluate.py", *EVALUATE.split(), "--output_dir", tmp_path / "judged"], home="judge")
    judged = json.loads((tmp_path / "judged" / "results.json").read_text())
    ours["set"] = "clean"
    clean = {record["branch"]: record["value"] for record in judged if ours.items() <= record.items()}
    assert {branch: clean[branch] for branch in measured} == pytest.approx(measured)

    repo.private = True
    resumed = run(
        RESUME, code_expected=1, home="third", input=f"{token} {repo.commit('main').oid} {tmp_path / 'again'}"
    )
    assert json.loads(resumed.stdout.splitlines()[0]) == pytest.approx(measured)
    assert hub.files("me/again").keys() == model | {"README.md"}
    assert "base_model: me/insects-advbn" in hub.files("me/again")["README.md"].decode()
    assert "Traceback" in resumed.stderr
    assert resumed.stderr.splitlines()[-1].endswith("(Invalid reference for a branch: refs/pr/9)")

    everything = [*run.printed, *(str(seen.path) for seen in hub.requests)]
    everything += [
        data.decode("latin-1") for kept in hub.store.repos for data in hub.files(kept[1], kind=kept[0]).values()
    ]
    for folder in (tmp_path, hub.folder):
        everything += [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    assert len(everything) > 60
    assert not [text for text in everything if token in text]
    sent = [data.decode("latin-1") for data in (found | hub.files("me/again")).values()]
    machine = re.compile(
        "|".join(re.escape(str(path)) for path in (tmp_path, hub.folder, RECIPES.parent, Path.home()))
    )
    assert not [text for text in sent if machine.search(text)]
