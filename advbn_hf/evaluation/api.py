"""One call from a model and a suite to records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import BaseImageProcessor
from transformers.utils import logging

from ..errors import InputError, check_at_least
from ..utils.run_lock import lock_folder
from .fit import check_fit
from .models import EvaluatedModel, Model, evaluated_models
from .records import Record
from .runner import RunSettings, run_suite
from .scoring import score
from .sets import LoadedSet, load_sets, match_classes
from .suites import Suite, load_suite

logger = logging.get_logger(__name__)


def evaluate_suite(
    model: Model,
    suite: str | Path | Suite = "embedded",
    *,
    processor: BaseImageProcessor | None = None,
    revision: str | None = None,
    model_name: str | None = None,
    baseline: Model | None = None,
    baseline_processor: BaseImageProcessor | None = None,
    baseline_revision: str | None = None,
    sets: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    skip_bad_images: bool = False,
    output_dir: str | Path | None = None,
    accelerator: Accelerator | None = None,
) -> list[Record]:
    """Evaluates an image classifier on the sets of a suite, in both branches if it has two.

    Args:
        model: any Transformers image classifier, `AdvBNForImageClassification`, or the Hub id or folder of either. An
            instance is moved to the accelerator's device.
        suite: name of a suite that comes with the package ("embedded", "generic" or "imagenet"), a YAML file (see
            `advbn_hf.evaluation.suites`), or a `Suite`.
        processor: the image processor; needed for an instance, by default the checkpoint's own.
        revision: branch, tag or commit of a model on the Hub.
        model_name: the records' `model`; by default "advbn" with two branches, else the last part of the id or folder,
            or "model" for an instance.
        baseline: another model, for paired tests on the same images; "baseline" in the records.
        baseline_processor: its image processor; by default its checkpoint's own, or `processor` for an instance.
        baseline_revision: as `revision`.
        sets: names of the suite's sets to evaluate; by default all.
        overrides: values for keys that sets leave open, for example `{"dataset": "me/birds", "split": "test"}` for
            "generic"; where `suite` is a name or file.
        max_samples: images of each set, drawn at random with a fixed seed; by default all.
        batch_size: images at a time on each process.
        num_workers: processes that decode and shift images, for each process.
        skip_bad_images: whether to leave out images that cannot be decoded, with a warning that names them.
        output_dir: folder whose subfolder "predictions" keeps what is computed, so that a second call computes only
            what is missing; locked until this process ends. By default nothing is kept.
        accelerator: device, precision and processes; by default `Accelerator()`.

    Returns:
        The records that `results.json` has, on every process: see `Record` and `score`.

    Raises:
        InputError: an argument is wrong, a model or set cannot be reached, classes do not match, a model and its image
            processor do not fit, or an image cannot be decoded; all but the last before anything is computed.

    Example:
        >>> from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil
        >>> config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
        >>> config.id2label = {digit: str(digit) for digit in range(10)}
        >>> records = evaluate_suite(
        ...     ResNetForImageClassification(config),
        ...     "embedded",
        ...     processor=ViTImageProcessorPil(size={"height": 32, "width": 32}),
        ...     sets=["clean"],
        ...     max_samples=20,
        ... )
        >>> [(record.model, record.set, record.metric, record.n) for record in records]
        [('model', 'clean', 'accuracy', 20), ('model', 'clean', 'top5_accuracy', 20), ('model', 'clean', 'ece', 20)]
    """
    check_at_least("max_samples", max_samples, 1)
    settings = RunSettings(None if output_dir is None else Path(output_dir), batch_size, num_workers, skip_bad_images)
    if not isinstance(suite, Suite):
        suite = load_suite(suite, overrides)
    elif overrides:
        raise InputError("overrides: the sets of a Suite are complete; give its file, or pass them to load_suite")
    if sets:
        suite = suite.only(sets)
    accelerator = accelerator or Accelerator()
    models = evaluated_models(
        model,
        baseline,
        processor=processor,
        revision=revision,
        name=model_name,
        baseline_processor=baseline_processor,
        baseline_revision=baseline_revision,
    )
    return evaluate_models(models, load_sets(suite, max_samples), accelerator, settings)


def evaluate_models(
    models: Sequence[EvaluatedModel], sets: Sequence[LoadedSet], accelerator: Accelerator, settings: RunSettings
) -> list[Record]:
    """Evaluates models on sets that are loaded.

    Args:
        models: the models; one of the name "baseline" is what the others are compared with.
        sets: from `load_sets`.
        accelerator: device, precision and processes.
        settings: how to run.

    Returns:
        The records, on every process.

    Raises:
        InputError: classes do not match, a model and its image processor do not fit, or an image cannot be decoded.
    """
    matches = match_classes(sets, models)
    for evaluated in models:
        check_fit(evaluated, [loaded.source(loaded.shifts[0]) for loaded in sets], settings.batch_size)
    if settings.output_dir is not None and accelerator.is_main_process:
        lock_folder(settings.output_dir)
    measured = run_suite(sets, matches, models, accelerator, settings)
    if accelerator.is_main_process:
        for measured_set in measured:
            for place in measured_set.left_out:
                logger.warning(f"left out of {measured_set.entry.name}, since it cannot be decoded: {place}")
    return score(measured)
