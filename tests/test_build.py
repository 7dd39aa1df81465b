"""What is in the sdist and the wheel, whether the wheel works away from the checkout, and bounds and pins."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from contextlib import chdir
from pathlib import Path

import pytest
from hatchling import build
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from advbn_hf.commands import RECIPES

ROOT = Path(__file__).parents[1]
FOLDERS = ("advbn_hf", "model_cards", "recipes", "tests")
FILES = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "constraints.txt")
FILES = {
    name for name in (*FILES, "pyproject.toml", ".gitignore", ".pre-commit-config.yaml") if (ROOT / name).exists()
}
DESCRIPTION = ("METADATA", "RECORD", "WHEEL", "entry_points.txt")
CONFIGS = ("demo", "quickstart", "resnet50_imagenet", "visualize")
LEFT_BEHIND = {
    ".hypothesis/examples/1",
    ".pytest_cache/README.md",
    ".venv/pyvenv.cfg",
    "advbn_hf/__pycache__/split.cpython-311.pyc",
    "dist/advbn_hf-0.0.1.tar.gz",
    "notes.txt",
    "outputs/quickstart/model.safetensors",
    "recipes/outputs/results.json",
    "tests/data/__pycache__/test_stream.cpython-311.pyc",
}
USE = """
from pathlib import Path
import advbn_hf
from advbn_hf.reporting.model_card import render_card
from advbn_hf.data.imagenet import imagenet_classes
from advbn_hf.evaluation.metrics import METRICS, load_metric
from advbn_hf.evaluation.records import Record

assert Path(advbn_hf.__file__).is_relative_to(Path("installed").resolve()), advbn_hf.__file__
assert len(imagenet_classes()) == 1000
assert load_metric("top_k_accuracy").compute(predictions=[1, 0], references=[1, 1])["top_k_accuracy"] == 0.5
assert all(load_metric(name).features for name in METRICS)
records = [Record("advbn", "clean", None, None, "clean", "accuracy", 0.5, 2)]
said = {"base_model": None, "dataset": "birds", "advbn_config": {}, "training": {}, "command": [], "versions": {}}
assert "50.0" in str(render_card(records, model_name="mine", **said))
"""


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout in which somebody has worked."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in LEFT_BEHIND:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("left behind")
    return folder


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory):
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with chdir(checkout):
        name = build.build_sdist(str(folder))
    shutil.unpack_archive(folder / name, folder)
    return folder / name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from the sdist as `python -m build` does."""
    folder = tmp_path_factory.mktemp("wheel")
    with chdir(sdist):
        return folder / build.build_wheel(str(folder))


def test_the_sdist_holds_what_git_does_and_nothing_else(sdist, checkout):
    assert files_of(sdist) - {"PKG-INFO"} == files_of(checkout) - LEFT_BEHIND
    assert {"recipes/suites/imagenet.yaml", "recipes/accelerate/ddp.yaml", "LICENSE"} <= files_of(sdist)


def test_the_wheel_holds_the_package_its_commands_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    described = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert {name.partition("/")[2] for name in described} == {*DESCRIPTION, "licenses/LICENSE"}
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "advbn_hf").rglob("*.py")}
    beside = {"advbn_hf/data/imagenet_classes.json", "advbn_hf/model_cards/template.md", "advbn_hf/py.typed"}
    recipes = {f"advbn_hf/recipes/{recipe.file}" for recipe in RECIPES.values()}
    recipes |= {f"advbn_hf/{path.relative_to(ROOT)}" for path in (ROOT / "recipes" / "suites").iterdir()}
    recipes |= {f"advbn_hf/recipes/configs/{name}.yaml" for name in CONFIGS}
    assert names - described == code | beside | recipes


@pytest.mark.slow
def test_the_wheel_finds_its_template_metrics_and_classes(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_dependency_has_a_lower_bound_and_a_pin_that_fits():
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = [*described["build-system"]["requires"], *described["project"]["dependencies"]]
    texts += [text for extra in described["project"]["optional-dependencies"].values() for text in extra]
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version in pins}
    for requirement in map(Requirement, texts):
        if requirement.name != "advbn_hf":  # its own extras, in the extra test
            assert {clause.operator for clause in requirement.specifier} & {">=", "=="}, requirement
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement
