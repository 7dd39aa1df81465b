"""Measures how robust an image classifier is: any one on the Hub, or both branches of an AdvBN checkpoint.

accelerate launch recipes/evaluate.py --model ID_OR_FOLDER                       on the embedded benchmark
accelerate launch recipes/evaluate.py --model ID_OR_FOLDER --suite imagenet      on ImageNet and its shifted sets
accelerate launch recipes/evaluate.py --model ID_OR_FOLDER --dataset_name ID     on a dataset and generated shifts

Add --baseline ID_OR_FOLDER to compare with another model on the same images, and --check to see, before anything
runs, which sets can be reached. Suites are described in advbn_hf/evaluation/suites.py.
"""

from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator, PartialState
from tqdm.auto import tqdm

from advbn_hf import InputError, evaluate_suite
from advbn_hf.evaluation.dry_run import check_set, check_table
from advbn_hf.evaluation.models import EvaluatedModel, evaluated_models
from advbn_hf.evaluation.records import write_results
from advbn_hf.evaluation.suites import Suite, load_suite
from advbn_hf.reporting.plots import plot_gain
from advbn_hf.reporting.severity_plot import plot_severities
from advbn_hf.reporting.suite_report import SuiteReport
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.files import check_writable
from advbn_hf.utils.options import parse


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
    check: bool = field(
        default=False, metadata={"help": "Only show which sets can be reached and whether labels match."}
    )
    max_samples: int | None = field(default=None, metadata={"help": "Take so many images of each set, at random."})
    batch_size: int = field(default=64, metadata={"help": "Images at a time on each process."})
    num_workers: int = field(default=0, metadata={"help": "Processes that read images, for each process."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16."})
    skip_bad_images: bool = field(
        default=False, metadata={"help": "Leave out images that cannot be decoded, with a warning."}
    )


ARGUMENTS = (EvaluationArguments,)


def main() -> None:
    """Evaluates set by set and reports."""
    (args,) = parse(ARGUMENTS)
    use_all_cores()
    suite = get_suite(args)
    check_arguments(args)
    accelerator = Accelerator(mixed_precision="bf16" if args.bf16 else None)
    revisions = {"revision": args.model_revision, "baseline_revision": args.baseline_revision}
    if args.check:
        check(suite, evaluated_models(args.model, args.baseline, **revisions))
        return
    records = evaluate_suite(
        args.model,
        suite,
        baseline=args.baseline,
        **revisions,
        max_samples=args.max_samples,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        skip_bad_images=args.skip_bad_images,
        output_dir=args.output_dir,
        accelerator=accelerator,
    )
    if accelerator.is_main_process:
        report(SuiteReport(records, suite), Path(args.output_dir))


def get_suite(args: EvaluationArguments) -> Suite:
    """The suite that was asked for, with the command line's dataset for the sets that name none."""
    options = {
        "dataset": args.dataset_name,
        "config": args.dataset_config_name,
        "revision": args.dataset_revision,
        "split": args.split,
        "image_column": args.image_column,
        "label_column": args.label_column,
    }
    name = args.suite or ("generic" if args.dataset_name else "embedded")
    suite = load_suite(name, {key: value for key, value in options.items() if value is not None})
    return suite.only(args.sets) if args.sets else suite


def check_arguments(args: EvaluationArguments) -> None:
    """Stops where there is no model, or no folder to write to."""
    if args.model is None:
        raise InputError("model: give the Hub id or folder of the model to evaluate")
    check_writable(args.output_dir, "output_dir")


def check(suite: Suite, models: list[EvaluatedModel]) -> None:
    """Shows which sets can be reached; a mistake if those are not all."""
    checks = [check_set(entry, models) for entry in tqdm(suite.sets, desc="reaching the sets", leave=False)]
    if PartialState().is_main_process:
        print(check_table(checks))
    failed = [set_check.name for set_check in checks if set_check.problem]
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
