"""Who may import whom: each room only from those before it, at the top of the file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import advbn_hf

PACKAGE = Path(__file__).parents[1] / "advbn_hf"
ORDER = (
    {"errors"},
    {"utils"},
    {"data", "backbones"},
    {"config", "shifts"},
    {"method", "hub", "training_args"},
    {"pretrained"},
    {"modeling"},
    {"evaluation", "training", "convert"},
    {"reporting", "trainer"},
    {"visualization", "demo"},
    {"commands"},
    {"__main__"},
)
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
# Extras, and `evaluate`, which recipes/evaluate.py hides while a recipe is being imported.
LATE = {"imagecorruptions", "pilgram2", "torchvision.transforms", "evaluate"}


def imported(path: Path) -> list[str]:
    """The rooms that a module imports from."""
    here = ("advbn_hf", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            parts = [*base, *(node.module or "").split(".")] if node.module else list(base)
            if parts[0] == "advbn_hf":
                found += [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("advbn_hf.")]
    return found


def test_every_room_has_a_place():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert rooms == set(PLACE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_come_from_earlier_rooms_alone(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert not [other for other in imported(path) if other != room and PLACE[other] >= PLACE[room]]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_stand_at_the_top_but_for_extras(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = [node for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)]
    late = {alias.name for node in inner if isinstance(node, ast.Import) for alias in node.names}
    late |= {node.module for node in inner if isinstance(node, ast.ImportFrom)}
    assert late <= LATE


def modules_after(code: str) -> set[str]:
    """What a new process has imported after some code."""
    code += "; import sys; print(*sys.modules, sep='\\n')"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_the_public_names_are_imported_when_they_are_asked_for():
    assert not {"torch", "transformers", "advbn_hf.errors"} & modules_after("import advbn_hf")
    assert "transformers.trainer" not in modules_after("import advbn_hf.commands")
    assert set(advbn_hf.__all__) <= set(dir(advbn_hf))
    with pytest.raises(AttributeError, match="'advbn_hf' has no attribute 'Trainer'"):
        advbn_hf.Trainer  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Trainer'"):
        from advbn_hf import Trainer  # noqa: F401


def test_the_public_names_import_neither_plots_nor_metrics_nor_the_card():
    modules = modules_after("from advbn_hf import *")
    assert "advbn_hf.modeling" in modules
    assert not {"matplotlib", "evaluate", "advbn_hf.reporting", "advbn_hf.reporting.model_card"} & modules


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_every_folder_says_in_one_sentence_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).partition("\n")[0].endswith(".")
