"""`model_cards/example/`, copied from the output of `accelerate launch recipes/finetune.py`."""

import re
from pathlib import Path

from huggingface_hub import metadata_load

from advbn_hf.evaluation.records import P_VALUE, read_results
from advbn_hf.evaluation.suites import load_suite
from advbn_hf.hub.metadata import validate_metadata
from advbn_hf.reporting.accuracy_table import to_markdown
from advbn_hf.reporting.suite_report import SuiteReport

EXAMPLE = Path(__file__).parents[2] / "model_cards" / "example"


def test_the_example_says_what_was_measured():
    records = read_results(EXAMPLE / "results.json")
    text = (EXAMPLE / "README.md").read_text()
    assert to_markdown(SuiteReport(records, load_suite("embedded")).table) in text
    metadata = metadata_load(EXAMPLE / "README.md")
    validate_metadata(metadata)
    metrics = [m["value"] for result in metadata["model-index"][0]["results"] for m in result["metrics"]]
    assert metrics == [record.value for record in records if record.model == "advbn" and record.metric != P_VALUE]
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("transformers", "image-classification")


def test_the_example_is_small_and_shows_its_images():
    images = re.findall(r"\]\((\w+\.png)\)", (EXAMPLE / "README.md").read_text())
    assert sorted([*images, "README.md", "results.json"]) == sorted(path.name for path in EXAMPLE.iterdir())
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 400_000
