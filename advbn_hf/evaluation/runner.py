"""Runs models over the sets of a suite, part by part; what is finished stays on disk and is not computed again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from ..data.images import BadImages, ImageDataset
from ..data.transforms import EvaluationTransform, Unresized
from ..errors import InputError
from ..utils.fingerprint import hash_settings
from .inference import predict
from .labels import LabelMatch
from .models import EvaluatedModel
from .predictions import Predictions
from .sets import LoadedSet, Part, load_set
from .suites import SetEntry, Suite

# What a set's predictions depend on besides its rows; names and what is reported may change.
_TRANSFORMS = {"processor": EvaluationTransform, "none": Unresized}
_KEYED = ("size", "seed", "preprocessing")


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing of it but `skip_bad_images` changes a number by more than rounding.

    Args:
        folder: where predictions are kept.
        batch_size: images at a time on each process.
        num_workers: processes that decode and shift images, for each process.
        skip_bad_images: whether to leave out images that cannot be decoded.
    """

    folder: Path
    batch_size: int = 64
    num_workers: int = 0
    skip_bad_images: bool = False


@dataclass(frozen=True)
class MeasuredSet:
    """The answers to a set.

    Args:
        entry: what the suite says of it.
        num_classes: number of its classes.
        answers: for each part, the predictions of each model by its name.
        left_out: images that could not be decoded.
    """

    entry: SetEntry
    num_classes: int
    answers: dict[Part, dict[str, Predictions]]
    left_out: tuple[str, ...] = ()


def load_sets(
    suite: Suite, models: Sequence[EvaluatedModel], accelerator: Accelerator, max_samples: int | None = None
) -> list[tuple[LoadedSet, dict[str, LabelMatch | None]]]:
    """Opens every set and matches its classes to every model's, so that all mistakes come before any work.

    Args:
        suite: the sets.
        models: the models.
        accelerator: the first process goes first, so that the others find its downloads.
        max_samples: rows to take of each set; by default all.

    Returns:
        Each set, with what its classes are of each model's, by the models' names.

    Raises:
        InputError: a set cannot be reached, or its classes are not the model's; begins with the set's name.
    """
    opened = []
    with accelerator.main_process_first():
        for entry in suite.sets:
            found = load_set(entry, max_samples)
            try:
                matches = {evaluated.name: found.match(evaluated.class_names) for evaluated in models}
            except InputError as error:
                raise InputError(f"set {entry.name!r}: {error}") from error
            opened.append((found, matches))
    return opened


def run_suite(
    opened: Sequence[tuple[LoadedSet, Mapping[str, LabelMatch | None]]],
    models: Sequence[EvaluatedModel],
    accelerator: Accelerator,
    settings: RunSettings,
) -> list[MeasuredSet]:
    """Has every model answer every part of every set, but for what is on disk from an earlier run.

    Args:
        opened: from `load_sets`.
        models: the models.
        accelerator: says which device, precision and processes to use.
        settings: how to run.

    Returns:
        The answers, set by set.

    Raises:
        InputError: an image cannot be decoded; begins with the set's name.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    fingerprints = {evaluated.name: evaluated.fingerprint() for evaluated in models}
    measured = []
    for found, matches in opened:
        answers: dict[Part, dict[str, Predictions]] = {}
        left_out: list[str] = []
        for part in found.parts:
            rows = found.source(part)._fingerprint  # of the content; `datasets` keys its own caches by it
            paths = {
                name: _path(
                    found.entry,
                    part,
                    [model, rows, matches[name] and matches[name].indices, accelerator.mixed_precision],
                    settings,
                )
                for name, model in fingerprints.items()
            }
            try:
                answers[part] = _answer(found, part, models, matches, paths, accelerator, settings)
            except InputError as error:
                raise InputError(f"set {_name(found.entry, part)!r}: {error}") from error
            left_out += [place for path in paths.values() for place in _log(path).summary() if place not in left_out]
        num_classes = len(found.names or models[0].class_names)
        measured.append(MeasuredSet(found.entry, num_classes, answers, tuple(left_out)))
    return measured


def _answer(
    found: LoadedSet,
    part: Part,
    models: Sequence[EvaluatedModel],
    matches: Mapping[str, LabelMatch | None],
    paths: Mapping[str, Path],
    accelerator: Accelerator,
    settings: RunSettings,
) -> dict[str, Predictions]:
    """Every model's predictions of a part. Its shift is made only if one of them is not there yet."""
    answers = {name: Predictions.load(path) for name, path in paths.items()}
    # No process may write a file before all have looked for it: they would not agree on what to do.
    accelerator.wait_for_everyone()
    if all(answers.values()):
        return answers
    with accelerator.main_process_first():
        rows = found.rows(part, settings.num_workers or None)
    for evaluated in models:
        if answers[evaluated.name] is not None:
            continue
        path = paths[evaluated.name]
        transform = _TRANSFORMS[found.entry.preprocessing](evaluated.processor)
        if accelerator.is_main_process:
            _log(path).path.unlink(missing_ok=True)  # of a run that was broken off
        accelerator.wait_for_everyone()
        predictions = predict(
            evaluated.model,
            ImageDataset(rows, transform, _log(path) if settings.skip_bad_images else None),
            accelerator=accelerator,
            description=f"{evaluated.name} on {_name(found.entry, part)}",
            match=matches[evaluated.name],
            batch_size=settings.batch_size,
            num_workers=settings.num_workers,
        )
        if accelerator.is_main_process:
            predictions.save(path)
        answers[evaluated.name] = predictions
    return answers


def _path(entry: SetEntry, part: Part, key: list[object], settings: RunSettings) -> Path:
    """The file of a model's predictions of a part, named after all that they depend on."""
    key = [*key, part, settings.skip_bad_images, *(getattr(entry, name) for name in _KEYED)]
    name = re.sub(r"[^\w.-]+", "-", _name(entry, part))[:80]
    return settings.folder / f"{name}-{hash_settings(key)[:16]}.safetensors"


def _name(entry: SetEntry, part: Part) -> str:
    return " ".join(dict.fromkeys(filter(None, (entry.name, str(part)))))


def _log(path: Path) -> BadImages:
    return BadImages(path.with_suffix(".bad.jsonl"))
