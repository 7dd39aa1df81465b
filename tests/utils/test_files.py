"""Finding the files that come with the package; writing one file from several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from advbn_hf.utils import files

REPOSITORY = Path(__file__).parents[2]


def test_a_checkout_has_shipped_files_at_its_top():
    assert files.shipped("model_cards/template.md").samefile(REPOSITORY / "model_cards" / "template.md")
    assert files.shipped("recipes/suites").samefile(REPOSITORY / "recipes" / "suites")


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "site-packages" / "advbn_hf")
    for name in ("site-packages/advbn_hf/recipes/suites", "site-packages/recipes/suites"):
        (tmp_path / name).mkdir(parents=True)  # another distribution's folder beside the package is not taken
    assert files.shipped("recipes/suites") == tmp_path / "site-packages" / "advbn_hf" / "recipes" / "suites"


def test_what_is_missing_is_named():
    with pytest.raises(FileNotFoundError, match="recipes/nothing"):
        files.shipped("recipes/nothing")


def test_threads_may_write_one_file(tmp_path):
    def write(text):
        for _ in range(50):
            files.write_atomically(tmp_path / "file.txt", text)
            assert len((tmp_path / "file.txt").read_text()) == 1000

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [letter * 1000 for letter in "abcdefgh"]))
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
