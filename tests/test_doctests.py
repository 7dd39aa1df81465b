"""Every public name has an example in its docstring, and every example in the package runs."""

import doctest
import importlib
from pathlib import Path

import pytest

import advbn_hf

PACKAGE = Path(advbn_hf.__file__).parent
PUBLIC = [name for name in advbn_hf.__all__ if name != "__version__"]
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name):
    assert ">>>" in getattr(advbn_hf, name).__doc__


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(".".join(("advbn_hf", *path.relative_to(PACKAGE).with_suffix("").parts)))
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS) == (0, sum(_examples(module)))


def _examples(module):
    return [len(test.examples) for test in doctest.DocTestFinder().find(module)]
