"""Complete checkpoints: how a run writes them, which ones it can resume from, and how.

The last file of each lists the others with their hashes. `CheckpointMixin` holds all that `AdvBNTrainer` overrides or
uses of Trainer's private parts; `tests/test_private_parts.py` names each.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, rotate_checkpoints
from transformers.utils import PushInProgress, logging

from ..backbones.adapters import has_adapters
from ..config import AdvBNConfig
from ..data.streaming import StreamedImageDataset
from ..errors import InputError, first_line
from ..hub import options_from, upload_in_background
from ..hub.card import CARD_FILE
from ..hub.contents import weight_files
from ..hub.generated_card import CardArguments
from ..modeling import AdvBNForImageClassification
from ..training_args import AdvBNTrainingArguments
from ..utils.advice import either, how_to_resume
from ..utils.files import write_atomically
from ..utils.fingerprint import hash_file
from .averaging import WeightAverage

logger = logging.get_logger(__name__)

ARGUMENTS_FILE = "training_args.json"
CONTENTS_FILE = "checkpoint_contents.json"
_CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


class CheckpointMixin(Trainer):
    """Saves, uploads and loads checkpoints of both branches at the moments when a Trainer does so."""

    args: AdvBNTrainingArguments
    push_in_progress: PushInProgress | None = None
    card_arguments = CardArguments()  # what `create_model_card` was given
    best_loaded_at: int | None = None  # length of the log when the best checkpoint was loaded
    average = WeightAverage(None)
    _resumed_step = 0  # of the checkpoint that the run resumes from

    @property
    def unwrapped(self) -> AdvBNForImageClassification:
        """The model itself, whatever Accelerate has put around it."""
        return self.accelerator.unwrap_model(self.model)

    @contextmanager
    def _resuming(self, resume_from_checkpoint: str | bool | None) -> Iterator[str | None]:
        """Yields the checkpoint that `train` is to resume from; a stream begins in the block where that was written.

        Raises:
            InputError: if it is not complete, or holds more than numbers.
        """
        checkpoint = None
        if resume_from_checkpoint:
            checkpoint = complete_checkpoint(resume_from_checkpoint, self.args.output_dir)
        self.average.resume(checkpoint)
        self._resumed_step, self.best_loaded_at = 0, None
        if checkpoint:
            self._resumed_step = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME)).global_step
        ignore_data_skip = self.args.ignore_data_skip
        if isinstance(self.train_dataset, StreamedImageDataset):
            steps = 0 if ignore_data_skip else self._resumed_step
            self.train_dataset.pass_over(steps * self.args.gradient_accumulation_steps, self.args.train_batch_size)
            self.args.ignore_data_skip = True  # the Trainer would decode all that came before
        try:
            yield checkpoint
        except UnpicklingError as error:
            raise InputError(
                f"resume_from_checkpoint: {checkpoint} holds more than numbers, so it is not read; "
                "remove it and resume from another"
            ) from error
        finally:
            self.args.ignore_data_skip = ignore_data_skip

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As in `Trainer`, but a run that has made all its steps has no epochs left: it would begin one more."""
        epochs, *others, max_steps = super().set_initial_training_values(*args, **kwargs)
        return (0 if self._resumed_step >= max_steps else epochs, *others, max_steps)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As in `Trainer`, but a checkpoint counts only once it is complete, and earlier ones go only after that.

        Raises:
            InputError: if the checkpoint cannot be written, as on a full disk; what was written of it is removed.
        """
        output_dir = Path(self._get_output_dir(trial=trial))
        folder = output_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)  # what a run that died has left there
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with reporting_full_disk(folder):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with reporting_full_disk(folder):
                write_atomically(folder / ARGUMENTS_FILE, self.args.to_json_string())
                self.average.save_last(folder, self.unwrapped)
                seal(folder)
            rotate_checkpoints(str(output_dir), limit, self.state.best_model_checkpoint, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Starts an upload while training continues, unless the last one is still in progress."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self.args.hub_always_push or self.push_in_progress is None or self.push_in_progress.is_done():
            self.callback_handler.on_push_begin(self.args, self.state, self.control)
            options = options_from(self.args, commit_message=f"Training in progress, step {self.state.global_step}")
            job = upload_in_background(checkpoint_folder, self.hub_model_id, **options)
            self.push_in_progress = PushInProgress([job])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Loads both branches.

        Raises:
            InputError: if the model has adapters, or was constructed with other settings than the checkpoint's.
        """
        logger.info(f"Loading model from {resume_from_checkpoint}")
        unwrapped = self.accelerator.unwrap_model(model or self.model)
        if has_adapters(unwrapped):
            raise InputError(
                f"resume_from_checkpoint: {resume_from_checkpoint} holds the adapted model merged, so that a run "
                "cannot resume from it; restart, or load it as a model and adapt that"
            )
        saved = type(unwrapped).from_pretrained(resume_from_checkpoint, local_files_only=True)
        check_same_structure(resume_from_checkpoint, saved.advbn_config, unwrapped.advbn_config)
        unwrapped.load_state_dict(saved.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As in `Trainer`.

        Raises:
            InputError: if the checkpoint is of another optimiser, or of other trainable weights.
        """
        settings = [set(group) for group in self.optimizer.param_groups]
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
            fits = all(names <= set(group) for names, group in zip(settings, self.optimizer.param_groups, strict=True))
            reason = "it was another one"
        except (KeyError, TypeError, ValueError) as error:
            fits, reason = False, first_line(error)
        if not fits:
            raise InputError(
                f"resume_from_checkpoint: the optimiser of {checkpoint} does not fit this run's ({reason}); set optim "
                "and freeze weights as in that run, or restart in another output_dir"
            )

    def _load_best_model(self) -> None:
        logger.info(f"Loading best model from {self.state.best_model_checkpoint} (score: {self.state.best_metric})")
        self._load_from_checkpoint(self.state.best_model_checkpoint)
        self.best_loaded_at = len(self.state.log_history)


def seal(checkpoint: str | Path) -> None:
    """Lists the files of a checkpoint with their SHA-256 in `checkpoint_contents.json`: it is complete from now on.

    The card is not listed, since a person may edit it.

    Args:
        checkpoint: folder, to which nothing is added afterwards.

    Raises:
        InputError: if it lacks weights of a branch, as on the second of two nodes under `save_on_each_node`.
    """
    weight_files(checkpoint)
    files = sorted(path for path in Path(checkpoint).rglob("*") if path.is_file())
    names = {path: path.relative_to(checkpoint).as_posix() for path in files}
    contents = {name: hash_file(path) for path, name in names.items() if name not in (CONTENTS_FILE, CARD_FILE)}
    write_atomically(Path(checkpoint) / CONTENTS_FILE, json.dumps(contents, indent=2) + "\n")


def damage(checkpoint: str | Path) -> str | None:
    """What is wrong with a checkpoint of a run, in words; None if every file is as it was written.

    Args:
        checkpoint: folder.
    """
    listed = Path(checkpoint) / CONTENTS_FILE
    if not listed.is_file():
        return f"it was never finished (it has no {CONTENTS_FILE})"
    try:
        contents = dict(json.loads(listed.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        return f"{CONTENTS_FILE} is damaged"
    for name, expected in contents.items():
        path = Path(checkpoint) / name
        if not path.is_file():
            return f"{name} is missing"
        if hash_file(path) != expected:
            return f"{name} is not as it was written"
    try:
        unlisted = [path.as_posix() for path in weight_files(checkpoint) if path.as_posix() not in contents]
    except InputError as error:
        return str(error)
    return f"{unlisted[0]} is not listed in {CONTENTS_FILE}" if unlisted else None


def complete_checkpoint(checkpoint: str | Path | bool, output_dir: str | Path) -> str:
    """The checkpoint to resume from, checked.

    Args:
        checkpoint: folder, or True or "last" for the last complete one of the run.
        output_dir: folder of the run.

    Raises:
        InputError: if it is not complete, or there is none; names the checkpoint and the file.
    """
    if checkpoint in (True, "last"):
        last = last_complete_checkpoint(output_dir)
        if last is None:
            raise InputError(f"resume_from_checkpoint: {output_dir} has no complete checkpoint; restart")
        return last
    if not Path(checkpoint).is_dir():
        raise InputError(f"resume_from_checkpoint: there is no folder {checkpoint}; resume with {how_to_resume()}")
    if (last := last_complete_checkpoint(checkpoint)) is not None:
        raise InputError(f"resume_from_checkpoint: {checkpoint} holds checkpoints, and is none; name one, as {last}")
    if reason := damage(checkpoint):
        raise InputError(
            f"resume_from_checkpoint: {checkpoint} is not complete: {reason}; the last that is: {how_to_resume()}"
        )
    return str(checkpoint)


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The last complete checkpoint of a run; every later one is named with what is wrong with it.

    Args:
        output_dir: folder of the run; there need not be one.

    Returns:
        The folder `checkpoint-STEP`, or None if none is complete.
    """
    found = {int(match[1]): path for path in Path(output_dir).glob("*") if (match := _CHECKPOINT.fullmatch(path.name))}
    for _, path in sorted(found.items(), reverse=True):
        reason = damage(path)
        if reason is None:
            return str(path)
        logger.warning(f"{path} is skipped, since it is not complete: {reason}")
    return None


def checkpoint_to_resume(args: AdvBNTrainingArguments) -> str | None:
    """The checkpoint to resume from: the one named, for "last" the last complete one; None to start over.

    Args:
        args: with `resume_from_checkpoint` and `output_dir`.
    """
    if args.resume_from_checkpoint == "last":
        return last_complete_checkpoint(args.output_dir)
    return args.resume_from_checkpoint


def check_same_structure(checkpoint: str | Path, saved: AdvBNConfig, running: AdvBNConfig) -> None:
    """Stops a run that would resume with weights of a model that was constructed with other settings.

    Args:
        checkpoint: folder, for the message.
        saved: the settings that it was trained with.
        running: those of the run; both with the insertion point found.

    Raises:
        InputError: names the setting and both values.
    """
    if difference := saved.difference_in_structure(running):
        name, was, now = difference
        raise InputError(
            f"resume_from_checkpoint: {checkpoint} was trained with {name} {was}, and this run has {now}; "
            f"{either(f'add --{name} {was}', f'wrap with AdvBNConfig({name}={was!r})')}, "
            "or restart in another output_dir"
        )


@contextmanager
def reporting_full_disk(checkpoint: Path) -> Iterator[None]:
    """Removes what the block has written of a checkpoint if the disk has no room for all of it, and reports that.

    Raises:
        InputError: names the folder.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors give no number of the error
        shutil.rmtree(checkpoint, ignore_errors=True)
        raise InputError(
            f"{checkpoint}: cannot be written ({first_line(error)}); make room, for example by save_total_limit, "
            f"and resume with {how_to_resume()}"
        ) from error
