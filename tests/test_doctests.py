"""Every public name has an example in its docstring, and every example in the package runs."""

import doctest
import importlib
import sys
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
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS)[:2] == (0, sum(_examples(module)))


def _examples(module):
    """The number of examples of each docstring, less those that need a network or a file; Python 3.13 counts these."""
    tests = doctest.DocTestFinder().find(module)
    counted = sys.version_info >= (3, 13)
    return [sum(counted or doctest.SKIP not in example.options for example in test.examples) for test in tests]
