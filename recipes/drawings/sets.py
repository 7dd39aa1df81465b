"""The two tasks: which images there are, and writing them with a card and a suite."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import yaml
from tqdm.auto import tqdm

from advbn_hf.errors import InputError
from advbn_hf.utils.files import write_atomically

from .packages import DESIGNERS, Icon, IconSet
from .rendering import Ground, draw, line_art, place

Pool = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """One split of a task.

    Args:
        name: of the split, and of its folder.
        title: what reports call it.
        designer: whose drawings.
        pool: which concepts, where these are split.
        ground: what the drawings are put on.
        lines: whether the lines are shown alone.
        reported: whether it is in the mean of the suite.
    """

    name: str
    title: str
    designer: str
    pool: Pool = "test"
    ground: Ground = "pale"
    lines: bool = False
    reported: bool = False


def _splits() -> tuple[Split, ...]:
    """Noto to train on, Twemoji to choose settings on, the others to report; each plain and on vivid grounds."""
    splits = [Split("train", "train", "noto", "train")]
    for designer in DESIGNERS:
        pool: Pool = "validation" if designer == "twemoji" else "test"
        name, title = ("validation" if designer == "twemoji" else designer), DESIGNERS[designer].title
        reported = designer not in ("noto", "twemoji")
        splits.append(Split(name, title, designer, pool, reported=reported))
        splits.append(Split(f"{name}_vivid", f"{title} vivid", designer, pool, "vivid", reported=reported))
        if designer == "openmoji":
            splits.append(Split(f"{name}_line_art", f"{title} line art", designer, lines=True, reported=True))
    return tuple(splits)


SPLITS = _splits()


@dataclass(frozen=True)
class Task:
    """A dataset to make.

    Args:
        name: of its folder.
        about: one sentence for its card.
        classes: by pool and class the concepts.
    """

    name: str
    about: str
    classes: Mapping[Pool, Mapping[str, Sequence[str]]]

    def images(self, split: Split, copies: int) -> Iterator[tuple[str, Path]]:
        """Concept and relative path of each image of a split."""
        for label, concepts in self.classes[split.pool].items():
            for concept in concepts:
                for copy in range(copies):
                    yield concept, Path(self.name, split.name, label, f"{concept}-{copy}.png")


@dataclass(frozen=True)
class _Job:
    """All images of one drawing, by their paths under the folder: it is drawn once."""

    name: str
    icon: Icon
    lines: bool
    images: list[tuple[Path, Ground]]


def write_tasks(
    folder: Path,
    tasks: Sequence[Task],
    sets: Mapping[str, IconSet],
    *,
    size: int,
    train_copies: int,
    copies: int,
    seed: int,
    num_workers: int,
) -> int:
    """Writes the images of all tasks, and a card and a suite for each.

    Args:
        folder: to write to.
        tasks: to make.
        sets: by designer.
        size: side of the images in pixels.
        train_copies: images of each concept in "train".
        copies: images of each concept in every other split.
        seed: of the placements. The same seed gives the same bytes.
        num_workers: processes that draw.

    Returns:
        How many images there are.

    Raises:
        InputError: a drawing cannot be drawn; names designer and icon.
    """
    jobs: dict[tuple[str, str, bool], _Job] = {}
    for task in tasks:
        for split in SPLITS:
            for concept, path in task.images(split, train_copies if split.name == "train" else copies):
                key = (split.designer, concept, split.lines)
                if key not in jobs:
                    icons = sets[split.designer]
                    jobs[key] = _Job(f"{icons.source}: {concept}", icons.icon(concept), split.lines, [])
                jobs[key].images.append((path, split.ground))
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
    draw_all = partial(_draw_all, folder=folder, size=size, seed=seed)
    # Ctrl-C reaches the workers too, which would each report it.
    with ProcessPoolExecutor(num_workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            done = pool.map(draw_all, jobs.values(), chunksize=8)
            count = sum(tqdm(done, desc="drawing", total=len(jobs), leave=False))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for task in tasks:
        write_atomically(folder / task.name / "README.md", _card(task, sets, size))
        write_atomically(folder / task.name / "suite.yaml", _suite(task))
    return count


def _draw_all(job: _Job, folder: Path, size: int, seed: int) -> int:
    try:
        drawing = draw(line_art(job.icon) if job.lines else job.icon, size)
    except InputError as error:
        raise InputError(f"{job.name}: {error}") from error
    for path, ground in job.images:
        rng = np.random.default_rng([seed, crc32(path.as_posix().encode())])
        place(drawing, rng, size, ground).save(folder / path)
    return len(job.images)


def _suite(task: Task) -> str:
    content = {
        "sets": [{"name": split.title, "split": split.name} for split in SPLITS if split.name != "train"],
        "mean_over": [split.title for split in SPLITS if split.reported],
    }
    return (
        f"# {task.about}\n"
        "# Give the folder of this file as --dataset_name. Settings are chosen on Twemoji: it is not in the mean.\n\n"
        + yaml.safe_dump(content, sort_keys=False)
    )


def _card(task: Task, sets: Mapping[str, IconSet], size: int) -> str:
    files = [{"split": split.name, "path": f"{split.name}/**"} for split in SPLITS]
    header = {
        "license": "other",
        "task_categories": ["image-classification"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    lines = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# {task.name}\n",
        f"{task.about} Images of {size} x {size} pixels; {len(task.classes['train'])} classes.\n",
        "| split | drawings | ground | concepts |",
        "|---|---|---|---|",
    ]
    for split in SPLITS:
        count = sum(map(len, task.classes[split.pool].values()))
        drawings = DESIGNERS[split.designer].title + (", lines alone" if split.lines else "")
        lines.append(f"| {split.name} | {drawings} | {split.ground} | {count} |")
    lines += [
        "\n## Sources and licences\n",
        "The drawings were turned, scaled and put on plain grounds; each image keeps the licence of its drawing.\n",
        "| drawings | by | licence | package |",
        "|---|---|---|---|",
    ]
    for name, designer in DESIGNERS.items():
        author, license_ = sets[name].info["author"], sets[name].info["license"]
        lines.append(
            f"| {designer.title} | {_link(author, 'name')} | {_link(license_, 'title')} "
            f"| {designer.package} {sets[name].version} |"
        )
    return "\n".join(lines) + "\n"


def _link(entry: Mapping[str, str], key: str) -> str:
    text, url = (" ".join(str(entry.get(field, "")).split()) for field in (key, "url"))
    return f"[{text}]({url})" if url else text
