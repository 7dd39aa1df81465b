"""Finding the files that come with the package; writing one file from several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from advbn_hf.errors import InputError
from advbn_hf.utils import files
from advbn_hf.utils.files import check_empty, check_file, check_writable

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


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    check_file(tmp_path / "new" / "deeper" / "sheet.PNG", "output_file", ".png")
    assert not any(tmp_path.iterdir())  # it only looks
    files.write_atomically(tmp_path / "new" / "deeper" / "sheet.PNG", b"")
    assert (tmp_path / "new" / "deeper" / "sheet.PNG").is_file()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for name in ("sheet.jpg", "sheet", "folder.png", "file/sheet.png", "/proc/self/sheet.png"):
        with pytest.raises(InputError, match=r"output_file: .*; name ") as error:
            check_file(tmp_path / name, "output_file", ".png")
        assert str((tmp_path / name).parent) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path):
    check_writable(tmp_path, "output_dir")
    check_writable(tmp_path / "new" / "deeper", "output_dir")
    check_empty(tmp_path / "new", "output_dir")
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inner", Path("/proc/self/new")):
        for check in (check_writable, check_empty):
            with pytest.raises(InputError, match=rf"output_dir: {folder} .*; name ") as error:
                check(folder, "output_dir")
            assert "\n" not in str(error.value)
