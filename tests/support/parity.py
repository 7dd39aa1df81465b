"""The same training by plain Trainer and by AdvBNTrainer, and where the test of an argument is."""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from builders import rows, tiny_convnext
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.modeling import PlainForImageClassification

TESTS = Path(__file__).parents[1]
SHOWN = ("loss", "grad_norm", "learning_rate", "eval_loss", "epoch", "step", "num_input_tokens_seen")


def wrap(backbone: nn.Module | None = None, **config: Any) -> AdvBNForImageClassification:
    """A wrapped ConvNeXt."""
    torch.manual_seed(0)
    return AdvBNForImageClassification.from_backbone(backbone or tiny_convnext(), AdvBNConfig(**config))


def settings_of(folder: Path, **settings: Any) -> dict[str, Any]:
    """Arguments of a short, quiet training on the CPU."""
    common = {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no"}
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    return {"output_dir": str(folder), **common, **quiet, **settings}


def arguments(folder: Path, **settings: Any) -> AdvBNTrainingArguments:
    """The same, as an object."""
    return AdvBNTrainingArguments(**settings_of(folder, **settings))


def logged(trainer: Trainer, name: str) -> list[float]:
    """Every logged value of that name."""
    return [log[name] for log in trainer.state.log_history if name in log]


def plain_and_ours(
    folder: Path,
    make: Callable[[], nn.Module] = tiny_convnext,
    given: Callable[[nn.Module], dict[str, Any]] | None = None,
    **settings: Any,
) -> list[Trainer]:
    """A Trainer of a classifier and an AdvBNTrainer of the same, without anything that AdvBN adds to its loss.

    Args:
        folder: of both runs' outputs.
        make: makes the classifier.
        given: makes arguments of a trainer from its model.
        settings: training arguments.
    """
    trainers = []
    for trainer_class, args_class in ((Trainer, TrainingArguments), (AdvBNTrainer, AdvBNTrainingArguments)):
        torch.manual_seed(0)
        model = make()
        if trainer_class is AdvBNTrainer:
            config = AdvBNConfig(auxiliary_norms=False, freeze_stem=False)
            model = PlainForImageClassification.from_backbone(model, config)
        args = args_class(**settings_of(folder / trainer_class.__name__, **copy.deepcopy(settings)))
        parts = {"train_dataset": rows(18), "eval_dataset": rows(7)} | (given(model) if given else {})
        trainers.append(trainer_class(model, args, **parts))
    return trainers


def train(*trainers: Trainer) -> None:
    """Trains each with the same random numbers."""
    for trainer in trainers:
        set_seed(trainer.args.seed)
        trainer.train()


def history(trainer: Trainer) -> list[dict[str, float]]:
    """What both trainers log."""
    shown = {
        name for log in trainer.state.log_history for name in log if name.startswith("eval_") and name.endswith("loss")
    }
    return [{name: log[name] for name in (*SHOWN, *shown) if name in log} for log in trainer.state.log_history]


def missing_tests(places: Iterable[str]) -> list[str]:
    """Those of "file::test", below `tests/`, that there are not."""
    gone = []
    for place in places:
        file, _, test = place.partition("::")
        path = TESTS / file
        if not path.is_file() or f"def {test}(" not in path.read_text(encoding="utf-8"):
            gone.append(place)
    return gone
