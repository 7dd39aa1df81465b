"""Datasets of things as several designers drew them, made from tiny packages of icons."""

import os
import sys
from pathlib import Path

import designers
import numpy as np
import pytest
from drawings.concepts import shared_concepts, subgroups
from drawings.packages import DESIGNERS, read_package
from drawings.sets import SPLITS
from icon_packages import FRUITS, MAMMALS, OTHERS, files_of, icons_of, needs_resvg, sorted_archives, write_archive
from PIL import Image

from advbn_hf.data.loading import class_names, load_images
from advbn_hf.errors import InputError
from advbn_hf.evaluation.suites import load_suite
from advbn_hf.utils.cli import run


def make(monkeypatch, output, *options):
    monkeypatch.setattr("sys.argv", ["designers.py", str(output), *map(str, options)])
    designers.main()


def small(archives):
    return ["--packages", archives, "--num_concepts", 20, "--size", 32, "--train_copies", 3, "--copies", 2]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@needs_resvg
def test_both_tasks_are_written_and_load_as_datasets(archives, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    make(monkeypatch, output, *small(archives))
    assert "concepts has 20 classes" in capsys.readouterr().out

    concepts = sorted([*MAMMALS, *FRUITS, "sun", "train"])
    for split in SPLITS:
        rows = load_images(str(output / "concepts"), split.name)
        assert class_names(rows) == concepts
        copies = 3 if split.name == "train" else 2
        assert np.bincount(rows["label"]).tolist() == [copies] * 20
    assert Image.open(output / "concepts/openmoji_line_art/cat/cat-1.png").size == (32, 32)

    shown = {}
    for split in SPLITS:
        files = (output / "subgroups" / split.name).rglob("*.png")
        for label, name in {(path.parent.name, path.stem.rpartition("-")[0]) for path in files}:
            assert name in {"animal-mammal": MAMMALS, "food-fruit": FRUITS}[label]
            shown.setdefault(split.pool, set()).add(name)
    assert {pool: len(names) for pool, names in shown.items()} == {"train": 9, "validation": 4, "test": 5}
    assert set.union(*shown.values()) == {*MAMMALS, *FRUITS}


@pytest.mark.slow
@needs_resvg
def test_the_suite_evaluates_what_the_card_describes(archives, tmp_path, monkeypatch):
    make(monkeypatch, tmp_path / "out", *small(archives))
    for task in ("concepts", "subgroups"):
        folder = tmp_path / "out" / task
        suite = load_suite(folder / "suite.yaml", {"dataset": str(folder)})
        assert {entry.split for entry in suite.sets} == {split.name for split in SPLITS} - {"train"}
        assert all(len(load_images(**entry.location)) > 0 for entry in suite.sets)
        assert {*suite.mean_over} == {
            *("OpenMoji", "OpenMoji vivid", "OpenMoji line art"),
            *("Fluent flat", "Fluent flat vivid", "Fluent", "Fluent vivid"),
        }
        card = (folder / "README.md").read_text()
        for designer in DESIGNERS.values():
            assert f"{designer.package} {designer.version}" in card
        assert card.count("[noto & co](https://example.org) | CC BY 4.0") == 1


@pytest.mark.slow
@needs_resvg
def test_a_seed_gives_the_same_bytes(archives, tmp_path, monkeypatch):
    made = []
    for number, options in enumerate((["--num_workers", 1], ["--num_workers", 2], ["--seed", 1])):
        make(monkeypatch, tmp_path / str(number), *small(archives), *options)
        made.append(contents(tmp_path / str(number)))
    assert made[0] == made[1]
    name = Path("concepts/train/cat/cat-0.png")
    assert made[0][name] != made[2][name]
    assert made[0][name] != made[0][Path("concepts/train/cat/cat-1.png")]


@pytest.mark.slow
@needs_resvg
def test_skipped_concepts_are_those_of_the_other_run(archives, tmp_path, monkeypatch):
    classes = []
    for skip in (0, 10):
        options = [*small(archives), "--num_concepts", 10, "--skip_concepts", skip]
        make(monkeypatch, tmp_path / str(skip), *options)
        classes.append({path.name for path in (tmp_path / str(skip) / "concepts" / "train").iterdir()})
    assert len(classes[0] | classes[1]) == 20


def test_concepts_are_shared_things_one_of_a_kind(archives):
    sets = {designer: read_package(path) for designer, path in zip(DESIGNERS, sorted_archives(archives), strict=True)}
    assert shared_concepts(sets) == sorted([*MAMMALS, *FRUITS, "sun", "train"])
    splits = subgroups(shared_concepts(sets), seed=3)
    for name in ("animal-mammal", "food-fruit"):
        assert [len(splits[pool][name]) for pool in splits] == {
            "animal-mammal": [5, 2, 3],
            "food-fruit": [4, 2, 2],
        }[name]


def lacking_designer(archives):
    write_archive(archives, "twemoji", files_of("twemoji", icons_of("twemoji", MAMMALS + FRUITS)))


def undrawable(archives):
    icons = icons_of("fluent", MAMMALS + FRUITS + OTHERS)
    icons["icons"]["cat"]["body"] = '<image href="a.png"/>'
    write_archive(archives, "fluent", files_of("fluent", icons))


def only_one_subgroup(archives):
    for designer in DESIGNERS:
        write_archive(archives, designer, files_of(designer, icons_of(designer, MAMMALS)))


@needs_resvg
@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lacking_designer, [], "num_concepts: 20 wanted and 0 skipped, but all designers drew only 18"),
        (lacking_designer, [], "@iconify-json/twemoji: black-cat, cat-face, sun"),
        (undrawable, [], "fluent-emoji-1.2.7.tgz: cat"),
        (only_one_subgroup, ["--num_concepts", 9], "two subgroups"),
        (lambda folder: sorted_archives(folder)[2].unlink(), [], "npm pack @iconify-json/openmoji@1.2.29"),
        (
            lambda folder: (folder / "iconify-json-noto-1.0.0.tgz").touch(),
            [],
            "several versions of @iconify-json/noto",
        ),
        (lambda folder: None, ["--packages", "nowhere"], "packages"),
        (lambda folder: None, ["--num_concepts", "1"], "num_concepts"),
        (lambda folder: None, ["--size", "7"], "size"),
        (lambda folder: None, ["--copeis", "7"], "copies"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(change, options, message, archives, tmp_path, monkeypatch, capsys):
    change(archives)
    output = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["designers.py", str(output), *map(str, [*small(archives), *options])])
    with pytest.raises(SystemExit) as end:
        run(designers.main)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert not output.exists() or not any(output.iterdir())


def test_without_resvg(archives, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(InputError, match=r"resvg_py is not installed: pip install"):
        make(monkeypatch, tmp_path / "out", *small(archives))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_kept(tmp_path, monkeypatch):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="output_dir"):
        make(monkeypatch, tmp_path)
    with pytest.raises(InputError, match="output_dir"):
        monkeypatch.setattr("sys.argv", ["designers.py"])
        designers.main()


def fake_npm(folder, script):
    """An npm of ours, alone on the path."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!{sys.executable}\nimport os, shutil, sys\nfrom pathlib import Path\n{script}")
    (folder / "npm").chmod(0o755)


@pytest.mark.slow
@needs_resvg
@pytest.mark.skipif(os.name == "nt", reason="npm is another kind of file there")
def test_npm_packs_what_is_needed(archives, tmp_path, monkeypatch):
    fake_npm(
        tmp_path / "bin",
        f"""
Path({str(tmp_path / "called")!r}).write_text(" ".join(sys.argv[1:]))
for archive in Path({str(archives)!r}).iterdir():
    shutil.copy(archive, sys.argv[sys.argv.index("--pack-destination") + 1])
""",
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    make(monkeypatch, tmp_path / "out", *small(archives)[2:])
    assert (tmp_path / "out" / "concepts" / "suite.yaml").is_file()
    called = (tmp_path / "called").read_text()
    assert called.startswith("pack ")
    assert "--ignore-scripts" in called
    assert all(f"{designer.package}@{designer.version}" in called for designer in DESIGNERS.values())


@needs_resvg
@pytest.mark.skipif(os.name == "nt", reason="npm is another kind of file there")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "npm is not installed"),
        ("sys.exit('npm error network\\nnpm error more')", "npm error network"),
        ("", "lacks archives"),
    ],
)
def test_without_npm_or_a_network(script, message, tmp_path, monkeypatch):
    if script is not None:
        fake_npm(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InputError, match=message) as error:
        make(monkeypatch, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
