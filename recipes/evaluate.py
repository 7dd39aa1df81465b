"""Measures how robust an image classifier is: any one on the Hub, or both branches of an AdvBN checkpoint.

accelerate launch recipes/evaluate.py --model ID_OR_FOLDER                       on the embedded benchmark
accelerate launch recipes/evaluate.py --model ID_OR_FOLDER --suite imagenet      on ImageNet and its shifted sets
accelerate launch recipes/evaluate.py --model ID_OR_FOLDER --dataset_name ID     on a dataset and generated shifts

Add --baseline ID_OR_FOLDER to compare with another model on the same images, and --check to see, before anything
runs, which sets can be reached. Suites are described in advbn_hf/evaluation/suites.py.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator, PartialState
from tqdm.auto import tqdm

from advbn_hf import InputError
from advbn_hf.evaluation.dry_run import check_set, check_table
from advbn_hf.evaluation.models import EvaluatedModel, load_evaluated_model
from advbn_hf.evaluation.records import write_results
from advbn_hf.evaluation.runner import RunSettings, load_sets, run_suite
from advbn_hf.evaluation.scoring import score
from advbn_hf.evaluation.suites import Suite, load_suite
from advbn_hf.reporting.plots import plot_gain
from advbn_hf.reporting.severity_plot import plot_severities
from advbn_hf.reporting.suite_report import SuiteReport
from advbn_hf.utils.cli import parse, run, use_all_cores
from advbn_hf.utils.run_lock import lock_folder

SUITES = Path(__file__).parent / "suites"


@dataclass
class EvaluationArguments:
    """What to evaluate, and on what."""

    model: str | None = field(default=None, metadata={"help": "Hub id or folder of the model."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    baseline: str | None = field(default=None, metadata={"help": "Hub id or folder of a model to compare with."})
    baseline_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the baseline."})
    suite: str | None = field(
        default=None,
        metadata={
            "help": 'Name of a suite in recipes/suites, or a YAML file; "embedded" or, with a dataset, "generic".'
        },
    )
    sets: list[str] | None = field(default=None, metadata={"help": "Names of the suite's sets to evaluate; all else."})
    dataset_name: str | None = field(default=None, metadata={"help": "Hub id or folder of a dataset."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the dataset."})
    split: str | None = field(default=None, metadata={"help": 'Split of the dataset; "validation" by default.'})
    image_column: str | None = field(default=None, metadata={"help": "Column of the images; found by its type."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels; found by its type."})
    output_dir: str = field(default="outputs/evaluation", metadata={"help": "Folder of results and predictions."})
    check: bool = field(default=False, metadata={"help": "Only say what can be reached and whether labels match."})
    max_samples: int | None = field(default=None, metadata={"help": "Take so many images of each set, at random."})
    batch_size: int = field(default=64, metadata={"help": "Images at a time on each process."})
    num_workers: int = field(default=0, metadata={"help": "Processes that read images, for each process."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16."})
    skip_bad_images: bool = field(
        default=False, metadata={"help": "Leave out images that cannot be decoded, and name them at the end."}
    )


def main() -> None:
    """Checks everything that can be checked, then evaluates set by set and reports."""
    (args,) = parse((EvaluationArguments,))
    use_all_cores()
    suite = get_suite(args)
    check_arguments(args)
    accelerator = Accelerator(mixed_precision="bf16" if args.bf16 else None)
    models = load_evaluated_models(args)
    if args.check:
        check(suite, models)
        return

    folder = Path(args.output_dir)
    opened = load_sets(suite, models, accelerator, args.max_samples)
    if accelerator.is_main_process:
        lock_folder(folder)
    settings = RunSettings(folder / "predictions", args.batch_size, args.num_workers, args.skip_bad_images)
    measured = run_suite(opened, models, accelerator, settings)
    if accelerator.is_main_process:
        report(SuiteReport(score(measured), suite), folder)
        for found in measured:
            for place in found.left_out:
                print(f"left out of {found.entry.name}, since it cannot be decoded: {place}")
    accelerator.end_training()


def get_suite(args: EvaluationArguments) -> Suite:
    """The suite that was asked for, with the command line's dataset for the sets that name none."""
    name = args.suite or ("generic" if args.dataset_name else "embedded")
    shipped = {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise InputError(f"suite: there is no suite or file {name}; shipped are {', '.join(shipped)}")
    overrides = {
        "dataset": args.dataset_name,
        "config": args.dataset_config_name,
        "revision": args.dataset_revision,
        "split": args.split,
        "image_column": args.image_column,
        "label_column": args.label_column,
    }
    suite = load_suite(path, {key: value for key, value in overrides.items() if value is not None})
    if args.dataset_name is not None and all(entry.dataset != args.dataset_name for entry in suite.sets):
        raise InputError(f"dataset_name: the suite {name} names its own datasets; leave one of the two out")
    return suite.only(args.sets) if args.sets else suite


def check_arguments(args: EvaluationArguments) -> None:
    """Stops on options that are missing or out of range."""
    if args.model is None:
        raise InputError("model: give the Hub id or folder of the model to evaluate")
    for name, least in (("max_samples", 1), ("batch_size", 1), ("num_workers", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"{name} must be {least} or more, got {value}")
    if Path(args.output_dir).is_file():
        raise InputError(f"output_dir: {args.output_dir} is a file; name a folder")


def load_evaluated_models(args: EvaluationArguments) -> list[EvaluatedModel]:
    """The model, and the baseline to compare it with."""
    models = [load_evaluated_model(args.model, revision=args.model_revision)]
    if args.baseline is not None and models[0].name == "baseline":
        models[0] = replace(models[0], name="model")  # a folder of that name
    if args.baseline is not None:
        models.append(load_evaluated_model(args.baseline, "baseline", args.baseline_revision))
    return models


def check(suite: Suite, models: list[EvaluatedModel]) -> None:
    """Says what can be reached; a mistake if that is not all."""
    checks = [check_set(entry, models) for entry in tqdm(suite.sets, desc="reaching for the sets", leave=False)]
    if PartialState().is_main_process:
        print(check_table(checks))
    failed = [found.name for found in checks if found.problem]
    if failed:
        raise InputError(f"{len(failed)} of {len(checks)} sets cannot be evaluated: {', '.join(failed)}; see above")


def report(results: SuiteReport, folder: Path) -> None:
    """Prints the table and writes results and plots."""
    print(results.to_text())
    write_results(folder / "results.json", results.records)
    results.write_markdown(folder / "results.md")
    plot_gain(results.table, folder / "results.png")
    written = ["results.json", "results.md", "results.png"]
    if any(record.severity is not None for record in results.records):
        plot_severities(results.records, folder / "severities.png")
        written.append("severities.png")
    print(f"\nwritten to {folder}: {', '.join(written)}")


if __name__ == "__main__":
    run(main)
