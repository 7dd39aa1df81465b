"""Fine-tunes an image classifier with AdvBN, measures what that gained, and writes checkpoint, results and model card.

accelerate launch recipes/finetune.py                                  the quickstart: no download, minutes on a CPU
accelerate launch recipes/finetune.py CONFIG.yaml [--option value ...]
accelerate launch recipes/finetune.py --model_name_or_path ID --dataset_name ID --output_dir DIR [--option value ...]
"""

import copy
import dataclasses
import sys
from functools import partial
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import BaseImageProcessor, PreTrainedModel, set_seed

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.backbones import insertion
from advbn_hf.backbones.loading import load_classifier, load_classifier_for, load_processor, new_classifier
from advbn_hf.data.duplicates import warn_of_duplicates
from advbn_hf.data.images import BadImages, ImageDataset, collate
from advbn_hf.data.loading import check_labels, check_same_classes, class_names, load_images
from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform, resized
from advbn_hf.evaluation.api import evaluate_models
from advbn_hf.evaluation.fit import check_fit
from advbn_hf.evaluation.models import EvaluatedModel
from advbn_hf.evaluation.records import write_results
from advbn_hf.evaluation.runner import RunSettings
from advbn_hf.evaluation.sets import LoadedSet, load_sets, match_classes
from advbn_hf.evaluation.suites import SetEntry, Suite, load_suite
from advbn_hf.hub import check_access
from advbn_hf.modeling import PlainForImageClassification
from advbn_hf.reporting.eval_results import write_eval_results
from advbn_hf.reporting.model_card import render_card, save_card
from advbn_hf.reporting.plots import plot_gain, plot_samples, plot_training
from advbn_hf.reporting.suite_report import SuiteReport
from advbn_hf.training.arguments import (
    DataArguments,
    ModelArguments,
    check_arguments,
    check_model_arguments,
    reported_arguments,
)
from advbn_hf.training.augmentation import AugmentationArguments
from advbn_hf.training.base import train_base
from advbn_hf.training.checkpoints import ARGUMENTS_FILE, check_same_structure, checkpoint_to_resume
from advbn_hf.training.inputs import training_images, training_rows
from advbn_hf.training.strength import advice_on_strength
from advbn_hf.training_args import check_perturbations
from advbn_hf.utils.cli import announce, run, use_all_cores
from advbn_hf.utils.options import parse, refused_options
from advbn_hf.utils.run_lock import lock_folder
from advbn_hf.utils.versions import installed_versions

ARGUMENTS = (ModelArguments, DataArguments, AugmentationArguments, AdvBNConfig, AdvBNTrainingArguments)
QUICKSTART = Path(__file__).parent / "configs" / "quickstart.yaml"
RESUME = "add --resume_from_checkpoint last to the same command"  # also where it had not trained yet


def main() -> None:
    """Checks everything that can be checked, then trains, evaluates and reports."""
    model_args, data_args, augmentation_args, advbn_config, args = parse(ARGUMENTS, default_file=QUICKSTART)
    use_all_cores()
    set_seed(args.seed)
    check_model_arguments(model_args)
    if model_args.list_insertion_points:
        list_insertion_points(model_args)
        return
    check_arguments(model_args, data_args, augmentation_args, advbn_config, args)
    train_set = load_split(data_args, data_args.train_split, data_args.streaming)
    eval_set = load_split(data_args, data_args.eval_split)
    base, processor = get_base(model_args, train_set, eval_set)
    check_perturbations(advbn_config, args, base)
    if args.push_to_hub:
        check_access(args)
    untrained = EvaluatedModel("base", base, processor)
    check_fit(untrained, [eval_set], args.per_device_eval_batch_size)
    if augmentation_args.augmentation != "none" and augmentation_args.crop_flip:
        check_fit(untrained, [eval_set], args.train_batch_size, TrainingTransform(processor))
    suite = evaluation_suite(data_args)
    sets = load_sets(suite, data_args.max_eval_samples)
    match_classes(sets, [untrained])

    output_dir = Path(args.output_dir)
    bad_images = BadImages(output_dir / "bad_images.jsonl") if data_args.skip_bad_images else None
    num_labels = base.config.num_labels
    images_for = partial(training_images, train_set, processor, bad_images, num_labels, data_args.streaming, args)
    images, plain_images = images_for(augmentation_args), images_for(augmentation_args.of_clean_branch())
    trainer_for = partial(
        AdvBNTrainer,
        data_collator=collate,
        eval_dataset=ImageDataset(eval_set, EvaluationTransform(processor), bad_images),
        processing_class=processor,
    )
    check_trainer(base, advbn_config, args, partial(trainer_for, train_dataset=images))
    if args.process_index == 0:
        lock_folder(output_dir)

    models: dict[str, PreTrainedModel | AdvBNForImageClassification] = {}
    if model_args.backbone_config is not None:
        announce("Training the base model")
        base = train_base(base, processor, plain_images, model_args, args)
    if not model_args.ignore_mismatched_sizes:  # else its head has learned nothing
        models["base"] = base
    if data_args.cache_stem_features:
        announce("Computing stem features")
    with training_rows(images, base, data_args, advbn_config, args) as rows:
        trainer_for = partial(trainer_for, train_dataset=rows)
        if model_args.baseline:
            announce("Fine-tuning plainly: the baseline")
            plain_for = partial(
                trainer_for, train_dataset=rows if augmentation_args.augmented_branch == "both" else plain_images
            )
            models["baseline"] = train_baseline(base, advbn_config, args, plain_for)
        announce("Fine-tuning with AdvBN")
        trainer = trainer_for(AdvBNForImageClassification.from_backbone(copy.deepcopy(base), advbn_config), args)
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(args))
        trainer.save_model()
    models["advbn"] = trainer.model

    announce("Evaluating")
    settings = RunSettings(
        None, args.per_device_eval_batch_size, args.dataloader_num_workers, data_args.skip_bad_images
    )
    evaluated = [EvaluatedModel(name, model, processor) for name, model in models.items()]
    records = evaluate_models(evaluated, sets, trainer.accelerator, settings)
    if trainer.is_world_process_zero():
        report(SuiteReport(records, suite), sets, trainer, model_args, data_args, augmentation_args)
        for place in bad_images.summary() if bad_images else []:
            print(f"left out, since it cannot be decoded: {place}")
    if args.push_to_hub:
        trainer.push_to_hub()


def list_insertion_points(model_args: ModelArguments) -> None:
    """Prints a model's choices of insert_after, with the share of the forward pass that comes before each."""
    if model_args.backbone_config is not None:
        model, _ = new_classifier(model_args.backbone_config, None)
    else:
        model = load_classifier(model_args.model_name_or_path, revision=model_args.model_revision)
    announce("Choices of insert_after")
    if PartialState().is_main_process:
        print(insertion.to_text(insertion.insertion_points(model)))


def load_split(data_args: DataArguments, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """One split of the dataset, with the columns "image" and "label"."""
    return load_images(data_args.dataset_name, split, streaming=streaming, **data_args.source)


def evaluation_suite(data_args: DataArguments) -> Suite:
    """What to report on: the suite that was asked for or the embedded benchmark's, else the evaluation split."""
    dataset = {"dataset": data_args.dataset_name, "split": data_args.eval_split, **data_args.source}
    if data_args.suite is None and data_args.dataset_name != "embedded":
        return Suite((SetEntry("clean", **dataset),))
    return load_suite(data_args.suite or "embedded", dataset=dataset)


def get_base(
    model_args: ModelArguments, train_set: Dataset | IterableDataset, eval_set: Dataset
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The classifier to start from, for the dataset's classes, and its image processor."""
    names = class_names(train_set)
    check_same_classes(train_set, eval_set, "eval_split")
    warn_of_duplicates(train_set, eval_set)
    if model_args.backbone_config is not None:
        model, processor = new_classifier(model_args.backbone_config, names)
    else:
        name, revision = model_args.model_name_or_path, model_args.model_revision
        model = load_classifier_for(names, name, new_head=model_args.ignore_mismatched_sizes, revision=revision)
        processor = load_processor(name, revision=revision)
        if model_args.image_size is not None:
            processor = resized(processor, model_args.image_size)
    for rows in (train_set, eval_set):
        check_labels(rows, model.config.num_labels)
    return model, processor


def check_trainer(
    base: PreTrainedModel, config: AdvBNConfig, args: AdvBNTrainingArguments, trainer_for: partial
) -> None:
    """Builds model, trainer, data loader, optimizer and schedule before any work, to see what refuses its options."""
    args = copy.copy(args)
    args.push_to_hub = False
    model = AdvBNForImageClassification.from_backbone(copy.deepcopy(base), config)
    with refused_options(args):
        trainer = trainer_for(model, args)
        trainer.get_train_dataloader()
        if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):  # these make their own of it
            trainer.create_optimizer_and_scheduler(num_training_steps=1)


def train_baseline(
    base: PreTrainedModel, config: AdvBNConfig, args: AdvBNTrainingArguments, train: partial
) -> PreTrainedModel:
    """Fine-tunes the same tail plainly, with the same steps, batches and seeds."""
    args = copy.copy(args)
    args.output_dir = str(Path(args.output_dir) / "baseline")
    args.push_to_hub = False
    args.resume_from_checkpoint = "last" if args.resume_from_checkpoint else None
    config = dataclasses.replace(config, auxiliary_norms=False)
    model = PlainForImageClassification.from_backbone(copy.deepcopy(base), config)
    if (Path(args.output_dir) / ARGUMENTS_FILE).exists():  # it is written last
        check_same_structure(args.output_dir, AdvBNConfig.from_pretrained(args.output_dir), model.advbn_config)
    else:
        trainer = train(model, args)
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(args))
        trainer.save_model()
        trainer.accelerator.wait_for_everyone()
    return load_classifier(args.output_dir)


def report(
    results: SuiteReport,
    sets: list[LoadedSet],
    trainer: AdvBNTrainer,
    model_args: ModelArguments,
    data_args: DataArguments,
    augmentation_args: AugmentationArguments,
) -> None:
    """Prints the table and writes results, plots and card."""
    args, folder = trainer.args, Path(trainer.args.output_dir)
    print(results.to_text())
    if advice := strength_advice(results, trainer.model.advbn_config):
        print(f"\n{advice}")
    write_results(folder / "results.json", results.records)
    images = ["results.png", "samples.png"]
    plot_gain(results.table, folder / "results.png")
    plot_samples({loaded.entry.title: loaded.base for loaded in sets}, folder / "samples.png")
    if any("loss" in log for log in trainer.state.log_history):
        images.append("training.png")
        images_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        plot_training(trainer.state.log_history, folder / "training.png", images_per_step)
    card = render_card(
        results.records,
        table=results.table,
        model_name=(args.hub_model_id or folder.name).split("/")[-1],
        base_model=model_args.model_name_or_path,
        dataset="embedded benchmark" if data_args.dataset_name == "embedded" else data_args.dataset_name,
        advbn_config=trainer.model.advbn_config.to_dict(),
        training=reported_arguments(args) | augmentation_args.reported() | {"steps": trainer.state.global_step},
        command=["accelerate", "launch", "recipes/finetune.py", *sys.argv[1:]],
        versions=installed_versions(),
        images=images,
        license=model_args.license,
        repo_id=trainer.hub_model_id,
    )
    save_card(card, folder)
    if data_args.max_eval_samples is None:
        name, config, revision = data_args.dataset_name, data_args.dataset_config_name, data_args.dataset_revision
        write_eval_results(folder, results.records, name, config=config, split=data_args.eval_split, revision=revision)
    print(f"\nwritten to {folder}: both branches, README.md, results.json, {', '.join(images)}")


def strength_advice(results: SuiteReport, config: AdvBNConfig) -> str | None:
    """What to change where the auxiliary branch fails on the suite's first set, which is like the training images."""
    first = results.suite.sets[0].title
    accuracies = {
        record.branch: record.value
        for record in results.by_set
        if (record.model, record.set, record.metric) == ("advbn", first, "accuracy")
    }
    if "auxiliary" not in accuracies:
        return None
    advice = advice_on_strength(accuracies["clean"], accuracies["auxiliary"], config)
    return advice and f"{first}: {advice}"


if __name__ == "__main__":
    run(main, RESUME)
