"""The table of `recipes/architectures.py`: what it says of networks whose parts can be counted, and its mistakes."""

import json
import re
import sys

import architectures
import pytest

from advbn_hf.utils.cli import run


def table(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["architectures.py", *map(str, options)])
    run(architectures.main)


@pytest.mark.slow
def test_rows(monkeypatch, tmp_path, capsys):
    names = ["ResNetForImageClassification", "ViTForImageClassification"]
    table(monkeypatch, "--only", *names, "--repeats", 2, "--output_file", tmp_path / "new" / "rows.json")
    rows = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert [row["name"] for row in rows] == names
    # ResNet-18 has 20 norms, one of them in its embedder; ViT has two a block and one, in 12 blocks.
    found = [(row["insert_after"], row["features"], row["norms"]) for row in rows]
    assert found == [("resnet.embedder", [64, 56, 56], 19), ("vit.embeddings.patch_embeddings", [196, 192], 25)]
    for row in rows:
        assert len(row["costs"]) == 2
        assert row["cost"] == pytest.approx(sum(row["costs"]) / 2)
        assert min(row["costs"]) > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| class | perturbed after |")
    assert lines[2].startswith("| ResNetForImageClassification | `resnet.embedder` | 64 x 56 x 56 | 19 | ")


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_every_row_is_a_class_of_transformers(name):
    config_class = getattr(architectures.transformers, name).config_class
    assert set(architectures.ARCHITECTURES[name]) <= set(config_class().to_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "ResNet"], "only: .*'ResNet'"),
        (["--repeats", 0], "repeats "),
        (["--batch_size", -1], "batch_size "),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as left:
        table(monkeypatch, *options)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {message}", line)
