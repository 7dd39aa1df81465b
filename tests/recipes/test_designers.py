"""Datasets of things as several designers drew them, made from tiny packages of icons."""

import importlib.util
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import designers
import numpy as np
import pytest
from drawings import packages
from drawings.concepts import shared_concepts, subgroups
from drawings.packages import DESIGNERS, Icon, find_archives, read_package
from drawings.rendering import draw, line_art, place
from drawings.sets import SPLITS
from PIL import Image

from advbn_hf.data.loading import class_names, load_images
from advbn_hf.errors import InputError
from advbn_hf.evaluation.suites import load_suite
from advbn_hf.utils.cli import run

needs_resvg = pytest.mark.skipif(
    importlib.util.find_spec("resvg_py") is None, reason='needs pip install -e ".[pretrained]"'
)

MAMMALS = ["badger", "bat", "bear", "beaver", "camel", "cat", "cow", "dog", "fox", "goat"]
FRUITS = ["banana", "cherries", "coconut", "grapes", "lemon", "lime", "mango", "melon"]
# A class of the first name would be a split by itself; the others are left out: clocks, near-duplicates, flags.
OTHERS = ["train", "two-oclock", "black-cat", "cat-face", "sun-with-face", "sun", "flag-in-hole"]
COLOURS = dict(zip(DESIGNERS, ("#c33", "#3c3", "#33c", "#cc3", "#3cc"), strict=True))


def icons_of(designer, names):
    """Each icon a coloured square with a black frame, as wide as its place in the list says."""
    bodies = {
        name: f'<g><rect x="2" y="2" width="{6 + number % 9}" height="12" fill="{COLOURS[designer]}"/>'
        f'<rect x="2" y="2" width="{6 + number % 9}" height="12" fill="none" stroke="#000"/></g>'
        for number, name in enumerate(names)
    }
    return {"prefix": designer, "icons": {name: {"body": body} for name, body in bodies.items()}, "aliases": {}}


def files_of(designer, icons):
    names = [*icons["icons"], *icons["aliases"]]
    info = {"author": {"name": f"{designer} & co", "url": "https://example.org"}, "license": {"title": "CC BY 4.0"}}
    return {
        "package.json": {"version": DESIGNERS[designer].version},
        "icons.json": icons,
        "info.json": info,
        "metadata.json": {"categories": {"Objects": names, "Smileys & Emotion": ["grinning-face"]}},
    }


def write_archive(folder, designer, files, extra=()):
    """What `npm pack` gives; `extra` has further members."""
    described = DESIGNERS[designer]
    path = folder / f"{described.package[1:].replace('/', '-')}-{described.version}.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member)
    return path


@pytest.fixture
def archives(tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    for designer in DESIGNERS:
        write_archive(folder, designer, files_of(designer, icons_of(designer, MAMMALS + FRUITS + OTHERS)))
    return folder


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


def sorted_archives(folder):
    return list(find_archives(folder).values())


SQUARE = '<path fill="#f00" d="M1 1h4v2h-4z"/>'


@needs_resvg
def test_an_icon_is_drawn_as_large_as_the_images_and_cut_to_what_is_seen():
    drawing = np.asarray(draw(Icon(SQUARE, (0, 0, 8, 8)), 64))
    assert drawing.shape == (24, 48, 4)  # 4 x 2 of 8 units, drawn at one and a half times 64 pixels
    assert (drawing == (255, 0, 0, 255)).all()


@needs_resvg
def test_flips_and_turns_of_aliases(archives, tmp_path):
    corner = '<path fill="#f00" d="M0 0h8v8h-8z"/><path fill="#00f" d="M0 0h2v2h-2z"/>'  # blue at the upper left
    icons = {
        "prefix": "noto",
        "width": 8,
        "height": 8,
        "icons": {"cat": {"body": corner}},
        "aliases": {"dog": {"parent": "cat", "hFlip": True}, "fox": {"parent": "dog", "rotate": 1}},
    }
    icon_set = read_package(write_archive(tmp_path, "noto", files_of("noto", icons)))

    def where_blue(name):
        rows, columns = np.nonzero(np.asarray(draw(icon_set.icon(name), 64))[:, :, 2] == 255)
        return ("upper" if rows.mean() < 48 else "lower", "left" if columns.mean() < 48 else "right")

    assert [where_blue(name) for name in ("cat", "dog", "fox")] == [
        ("upper", "left"),
        ("upper", "right"),
        ("lower", "right"),
    ]


@needs_resvg
def test_line_art_has_the_black_parts_alone():
    body = (
        '<g fill="#fc0"><circle cx="4" cy="4" r="3"/></g><circle cx="4" cy="4" r="3" fill="none" stroke="#000"/>'
        '<path fill="#00f" d="M3 3h2v2h-2z"/><path d="M0 0h1v1h-1z"/>'
    )
    drawing = np.asarray(draw(line_art(Icon(body, (0, 0, 8, 8))), 64)).astype(int)
    assert drawing[:, :, :3].max() == 0  # black, or nothing
    assert drawing[48, 48, 3] == 0  # the blue square in the middle
    assert drawing[2, 2, 3] == 255  # a shape without a colour is black
    inked = (drawing[:, :, 3] > 127).sum() / 96**2
    assert inked == pytest.approx((np.pi * 6 + 1) / 64, rel=0.05)  # a ring of width 1 and radius 3, and the square


@pytest.mark.parametrize("ground", ["pale", "vivid"])
def test_placements(ground):
    drawing, grounds, sides = Image.new("RGBA", (50, 30), (0, 0, 0, 255)), [], []
    for seed in range(30):
        image = np.asarray(place(drawing, np.random.default_rng(seed), 100, ground)).astype(int)
        colour = image[0, 0]
        rows, columns = np.nonzero(image.sum(2) < colour.sum() / 2)
        sides.append(max(np.ptp(rows), np.ptp(columns)) + 1)
        centre = np.array([rows.max() + rows.min(), columns.max() + columns.min()]) / 2
        assert abs(centre - 49.5).max() < 8
        grounds.append(tuple(colour))
    assert 57 <= min(sides) < 65
    assert 80 < max(sides) <= 86
    assert len(set(grounds)) == 30
    if ground == "pale":
        assert np.min(grounds) >= 225
    else:
        assert np.max(grounds, axis=1).min() >= 127
        assert (np.min(grounds, axis=1) <= 0.41 * np.max(grounds, axis=1)).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<image href="secret.png" width="8" height="8"/>', "'image'"),
        ('<text x="1" y="7">a</text>', "'text'"),
        ("<style>@import 'x.css'</style>", "'style'"),
        ('<use href="file:///x.svg#a"/>', "'file:///x.svg#a'"),
        ('<use xlink:href="x.svg#a"/>', "'x.svg#a'"),
        ('<path d="M0 0h8v8z" fill="url(http://example.org/a.svg#b)"/>', "example.org"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><g>&b;</g>', "cannot be read"),
        ("<g>", "cannot be read"),
        ("<g>" + " " * 1_000_000 + "</g>", "1,000,000"),
    ],
)
def test_drawings_that_are_refused(body, message):
    with pytest.raises(InputError, match=message):
        draw(Icon(body, (0, 0, 8, 8)), 32)


@needs_resvg
def test_a_drawing_that_shows_nothing():
    with pytest.raises(InputError, match="shows nothing"):
        draw(Icon("<g/>", (0, 0, 8, 8)), 32)


def without(name):
    files = files_of("noto", icons_of("noto", MAMMALS))
    del files[name]
    return files


def with_file(name, content):
    return files_of("noto", icons_of("noto", MAMMALS)) | {name: content}


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize(
    ("files", "extra", "message"),
    [
        (without("icons.json"), [], "icons.json"),
        (without("info.json"), [], "info.json"),
        (with_file("icons.json", b"{"), [], "icons.json"),
        (with_file("icons.json", b"[" * 100_000), [], "icons.json"),
        (with_file("icons.json", {"icons": ["cat"]}), [], "icons.json"),
        (with_file("icons.json", {"icons": {"cat": "<g/>"}}), [], "icons.json"),
        (with_file("info.json", {"author": "me"}), [], "info.json"),
        (with_file("metadata.json", {"categories": {"Objects": "cat"}}), [], "metadata.json"),
        (with_file("package.json", []), [], "package.json"),
        (with_file("info.json", {}), [link("package/link", "/etc/passwd")], "package/link"),
        (with_file("info.json", {}), [tarfile.TarInfo("../outside")], "outside"),
        (with_file("info.json", {}), [tarfile.TarInfo("/absolute")], "/absolute"),
    ],
)
def test_packages_of_another_layout(files, extra, message, tmp_path):
    path = write_archive(tmp_path, "noto", files, extra)
    with pytest.raises(InputError, match=message) as error:
        read_package(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_archives_that_are_damaged_or_too_large(archives, monkeypatch):
    path = sorted_archives(archives)[0]
    with monkeypatch.context() as patch:
        patch.setattr(packages, "MOST_BYTES", 1000)
        with pytest.raises(InputError, match="1,000 bytes"):
            read_package(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="pack it again"):
        read_package(path)


@pytest.mark.parametrize(
    "icon",
    [
        {"body": 3},
        {"body": "<g/>", "width": 0},
        {"body": "<g/>", "height": "tall"},
        {"body": "<g/>", "width": 1e9},
        {"parent": "cat"},
    ],
)
def test_icons_of_another_layout_are_named(icon, tmp_path):
    icons = {"prefix": "noto", "icons": {"cat": icon}, "aliases": {}}
    icon_set = read_package(write_archive(tmp_path, "noto", files_of("noto", icons)))
    with pytest.raises(InputError, match="cat"):
        icon_set.icon("cat")


def test_aliases_that_go_in_circles(tmp_path):
    icons = {"prefix": "noto", "icons": {}, "aliases": {"cat": {"parent": "dog"}, "dog": {"parent": "cat"}}}
    icon_set = read_package(write_archive(tmp_path, "noto", files_of("noto", icons)))
    with pytest.raises(InputError, match="cat"):
        icon_set.icon("cat")


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
