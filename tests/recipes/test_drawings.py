"""Packages of icons are read and drawn, or refused with one line."""

import tarfile

import numpy as np
import pytest
from drawings import packages
from drawings.packages import Icon, read_package
from drawings.rendering import draw, line_art, place
from icon_packages import MAMMALS, files_of, icons_of, needs_resvg, sorted_archives, write_archive
from PIL import Image

from advbn_hf.errors import InputError

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
