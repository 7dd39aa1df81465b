"""Tiny packages of icons, as npm packs them."""

import importlib.util
import io
import json
import tarfile

import pytest
from drawings.packages import DESIGNERS, find_archives

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


def sorted_archives(folder):
    return list(find_archives(folder).values())
