"""Predictions of models for the sets of a suite, shift by shift; what is finished stays on disk."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object

from ..data.images import BadImages, ImageDataset
from ..data.transforms import EvaluationTransform, Unresized
from ..errors import InputError, check_at_least
from ..utils.fingerprint import hash_settings
from .inference import predict
from .labels import LabelMatch
from .models import EvaluatedModel
from .predictions import Predictions
from .sets import LoadedSet, Shift
from .suites import SetEntry

_TRANSFORMS = {"processor": EvaluationTransform, "none": Unresized}
# What a set's predictions depend on besides its rows; names and what is reported may change.
_KEYED = ("size", "seed", "preprocessing")


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing of it but `skip_bad_images` changes a number by more than rounding.

    Args:
        output_dir: its subfolder "predictions" keeps what is computed; by default nothing is kept.
        batch_size: images at a time on each process.
        num_workers: processes that decode and shift images, for each process.
        skip_bad_images: whether to leave out images that cannot be decoded.

    Raises:
        InputError: a number is out of range.
    """

    output_dir: Path | None = None
    batch_size: int = 64
    num_workers: int = 0
    skip_bad_images: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("num_workers", 0)):
            check_at_least(name, getattr(self, name), least)


@dataclass(frozen=True)
class MeasuredSet:
    """The predictions for a set.

    Args:
        entry: its entry in the suite.
        num_classes: number of its classes.
        predictions: for each shift, those of each model by its name.
        left_out: images that could not be decoded.
    """

    entry: SetEntry
    num_classes: int
    predictions: dict[Shift, dict[str, Predictions]]
    left_out: tuple[str, ...] = ()


def run_suite(
    sets: Sequence[LoadedSet],
    matches: Sequence[Mapping[str, LabelMatch | None]],
    models: Sequence[EvaluatedModel],
    accelerator: Accelerator,
    settings: RunSettings,
) -> list[MeasuredSet]:
    """Predicts every set under every shift with every model, but for what is on disk from an earlier run.

    Args:
        sets: from `load_sets`.
        matches: from `match_classes`.
        models: the models; they are moved to the accelerator's device.
        accelerator: device, precision and processes.
        settings: how to run.

    Returns:
        The predictions, set by set.

    Raises:
        InputError: an image cannot be decoded; begins with the set's name.
    """
    for evaluated in models:  # the running statistics of processes that trained together differ by the last batch
        broadcast(list(evaluated.model.to(accelerator.device).buffers()))
    kept = settings.output_dir is not None
    fingerprints = {evaluated.name: evaluated.fingerprint() if kept else evaluated.name for evaluated in models}
    measured = []
    with _predictions_folder(settings) as folder:
        for loaded, matched in zip(sets, matches, strict=True):
            predictions: dict[Shift, dict[str, Predictions]] = {}
            left_out: list[str] = []
            for shift in loaded.shifts:
                rows = loaded.source(shift)._fingerprint  # of the content; `datasets` keys its own caches by it
                paths = {}
                for name, model in fingerprints.items():
                    indices = matched[name] and matched[name].indices
                    key = [model, rows, indices, accelerator.mixed_precision]
                    paths[name] = folder / _file_name(loaded.entry, shift, key, settings)
                try:
                    predictions[shift] = _predict(loaded, shift, models, matched, paths, accelerator, settings)
                except InputError as error:
                    raise InputError(f"set {_name(loaded.entry, shift)!r}: {error}") from error
                left_out += gather_object([place for path in paths.values() for place in _log(path).summary()])
            num_classes = len(loaded.names or models[0].class_names)
            measured.append(MeasuredSet(loaded.entry, num_classes, predictions, tuple(dict.fromkeys(left_out))))
    return measured


@contextmanager
def _predictions_folder(settings: RunSettings) -> Iterator[Path]:
    """The folder of the predictions; one that lasts as long as the block where they are not to be kept."""
    if settings.output_dir is None:
        with TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        folder = settings.output_dir / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def _predict(
    loaded: LoadedSet,
    shift: Shift,
    models: Sequence[EvaluatedModel],
    matched: Mapping[str, LabelMatch | None],
    paths: Mapping[str, Path],
    accelerator: Accelerator,
    settings: RunSettings,
) -> dict[str, Predictions]:
    """Every model's predictions under a shift, whose images are generated only if some are not there yet."""
    predictions = {name: Predictions.load(path) for name, path in paths.items()}
    # No process may write a file before all have looked for it: they would not agree on what to do.
    accelerator.wait_for_everyone()
    if all(predictions.values()):
        return predictions
    with accelerator.main_process_first():
        rows = loaded.rows(shift, settings.num_workers or None)
    for evaluated in models:
        if predictions[evaluated.name] is not None:
            continue
        path = paths[evaluated.name]
        transform = _TRANSFORMS[loaded.entry.preprocessing](evaluated.processor)
        if accelerator.is_main_process:
            _log(path).path.unlink(missing_ok=True)  # of a run that was interrupted
        accelerator.wait_for_everyone()
        predictions[evaluated.name] = predict(
            evaluated.model,
            ImageDataset(rows, transform, _log(path) if settings.skip_bad_images else None),
            accelerator=accelerator,
            description=f"{evaluated.name} on {_name(loaded.entry, shift)}",
            match=matched[evaluated.name],
            batch_size=settings.batch_size,
            num_workers=settings.num_workers,
        )
        if accelerator.is_main_process:
            predictions[evaluated.name].save(path)
    return predictions


def _file_name(entry: SetEntry, shift: Shift, key: list[object], settings: RunSettings) -> str:
    """The file of a model's predictions under a shift, named after all that they depend on."""
    key = [*key, shift, settings.skip_bad_images, *(getattr(entry, name) for name in _KEYED)]
    name = re.sub(r"[^\w.-]+", "-", _name(entry, shift))[:80]
    return f"{name}-{hash_settings(key)[:16]}.safetensors"


def _name(entry: SetEntry, shift: Shift) -> str:
    return " ".join(dict.fromkeys(filter(None, (entry.name, str(shift)))))


def _log(path: Path) -> BadImages:
    return BadImages(path.with_suffix(".bad.jsonl"))
