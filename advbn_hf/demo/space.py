"""The demo as a Space of the Hub: a folder that runs there as it is."""

import importlib.metadata
import shutil
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from ..evaluation.models import EvaluatedModel
from ..hub.metadata import is_on_hub
from ..shifts.generate import library_of
from ..utils.files import check_empty, filling
from .app import TITLE, Example, save_examples
from .sweep import available_shifts

PACKAGE = Path(__file__).parents[1]
APP = '''"""The page of this Space, as `recipes/demo.py --export_space` wrote it."""

from pathlib import Path

from advbn_hf.demo.app import build_app, launch, load_models, saved_examples

HERE = Path(__file__).parent
launch(build_app(load_models({model}, {baseline}), saved_examples(HERE / "examples")))
'''


def export_space(
    folder: str | Path, names: dict[str, str | None], models: list[EvaluatedModel], examples: list[Example]
) -> None:
    """Writes what a Space needs: page, card, requirements, this package, and what is not on the Hub.

    Args:
        folder: an empty or new one.
        names: "model" and "baseline" -> Hub id or folder; models in folders are copied.
        models: the same models, the baseline first.
        examples: images to choose from, with captions.

    Raises:
        InputError: the folder is not empty.
    """
    check_empty(folder, "export_space")
    with filling(folder) as space:
        loaded = dict(zip(("model", "baseline"), reversed(models), strict=False))
        code = {role: _source(role, name, loaded.get(role), space) for role, name in names.items()}
        save_examples(examples, space / "examples")
        (space / "app.py").write_text(APP.format(**code), encoding="utf-8")
        (space / "requirements.txt").write_text("\n".join(_requirements()) + "\n", encoding="utf-8")
        (space / "README.md").write_text(_card(names), encoding="utf-8")
        shutil.copytree(PACKAGE, space / "advbn_hf", ignore=shutil.ignore_patterns("__pycache__", "recipes"))


def _source(role: str, name: str | None, evaluated: EvaluatedModel | None, space: Path) -> str:
    """The code that names a model: its id, or the folder that it is copied to."""
    if name is None or is_on_hub(name):
        return repr(name)
    model, folder = evaluated.model, space / role
    model.save_pretrained(folder)
    evaluated.processor.save_pretrained(folder)
    return f'str(HERE / "{role}")'


def _requirements() -> list[str]:
    """The packages that the demo runs with here, in their versions; Gradio is what Spaces bring themselves."""
    declared = [Requirement(text) for text in importlib.metadata.requires("advbn_hf")]
    names = [requirement.name for requirement in declared if requirement.marker is None]
    names += sorted({library_of(shift) for shift in available_shifts()[1:]} - {None})
    # A build for one kind of machine, such as 2.13.0+cpu, is in no registry.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _card(names: dict[str, str | None]) -> str:
    metadata = {
        "title": "Robust or not",
        "sdk": "gradio",
        "sdk_version": importlib.metadata.version("gradio"),
        "python_version": "3.12",
        "app_file": "app.py",
        "models": [name for name in names.values() if name is not None and is_on_hub(name)],
    }
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# {TITLE}\n"
