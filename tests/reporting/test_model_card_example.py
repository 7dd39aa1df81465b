"""The cards in `model_cards/`, copied from the output of `accelerate launch recipes/finetune.py`."""

import re
from pathlib import Path

import pytest
from drawings.sets import SPLITS
from huggingface_hub import metadata_load

from advbn_hf.evaluation.records import P_VALUE, read_results
from advbn_hf.evaluation.suites import SetEntry, Suite, load_suite
from advbn_hf.hub.metadata import validate_metadata
from advbn_hf.reporting.accuracy_table import to_markdown
from advbn_hf.reporting.suite_report import SuiteReport

CARDS = Path(__file__).parents[2] / "model_cards"
SUITES = {
    "example": load_suite("embedded"),
    "designers": Suite(
        tuple(SetEntry(split.title, "outputs/designers/concepts") for split in SPLITS if split.name != "train"),
        tuple(split.title for split in SPLITS if split.reported),
    ),
}


@pytest.mark.parametrize("name", SUITES)
def test_a_card_says_what_was_measured(name):
    records = read_results(CARDS / name / "results.json")
    text = (CARDS / name / "README.md").read_text()
    assert to_markdown(SuiteReport(records, SUITES[name]).table) in text
    metadata = metadata_load(CARDS / name / "README.md")
    validate_metadata(metadata)
    metrics = [m["value"] for result in metadata["model-index"][0]["results"] for m in result["metrics"]]
    assert metrics == [record.value for record in records if record.model == "advbn" and record.metric != P_VALUE]
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("transformers", "image-classification")


@pytest.mark.parametrize("name", SUITES)
def test_a_card_is_small_and_shows_its_images(name):
    text = (CARDS / name / "README.md").read_text()
    images = re.findall(r"\]\((\w+\.png)\)", text)
    assert sorted([*images, "README.md", "results.json"]) == sorted(path.name for path in (CARDS / name).iterdir())
    assert sum(path.stat().st_size for path in (CARDS / name).iterdir()) < 600_000
    assert "/tmp/" not in text and "/home/" not in text
