"""`AdvBNTrainer`: a `transformers.Trainer` for models with two branches."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import CommitInfo
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils import logging

from .backbones.tracing import unused_weights
from .data.images import SetEpochCallback
from .data.streaming import StreamedImageDataset, load_stream
from .errors import InputError
from .hub import check_access, options_from, upload_checkpoint, upload_in_background
from .method.losses import AdvBNOutput
from .modeling import AdvBNForImageClassification
from .training.arguments import FixedArguments, check_arguments_kind, check_columns, check_learns, check_trainable
from .training.averaging import WeightAverage
from .training.card import CardMixin, card_of_run
from .training.checkpoints import ARGUMENTS_FILE
from .training.evaluation import EvaluationMixin, Metrics, accuracy, preprocess_each_branch
from .training.interrupts import StopAfterStep
from .training.metrics import StepLog, ascent_is_logged
from .training.nonfinite import LossWatch, check_weights
from .training.optimization import OptimizationMixin
from .training.stem_cache import StemFeatures
from .training_args import AdvBNTrainingArguments
from .utils.files import write_atomically

logger = logging.get_logger(__name__)


class AdvBNTrainer(EvaluationMixin, OptimizationMixin, CardMixin):
    """Trains an `AdvBNForImageClassification` with everything that `transformers.Trainer` offers.

    Beside `loss` it logs `clean_loss`, `adversarial_loss`, `clean_accuracy` and `auxiliary_accuracy`, and for the
    ascent of the step that is logged (of an epoch's first step, where epochs are logged) `ascent_gain`,
    `loss_before_ascent`, `loss_after_ascent`, `mean_distance` and `std_distance` (see `AdvBNOutput`). It evaluates
    both branches: `compute_metrics` (default: accuracy) is called with the logits of each, and its results are
    `eval_clean_accuracy` and `eval_auxiliary_accuracy`; `eval_loss` and `predict().predictions` are the clean
    branch's. Every checkpoint is an ordinary Transformers checkpoint with the auxiliary branch beside it.

    Args:
        model: the model to train.
        args: training arguments; `AdvBNTrainingArguments()` by default.
        model_init: makes a model for each training instead, as `hyperparameter_search` needs.
        compute_loss_func: takes an `AdvBNOutput` with logits (B, K), labels (B,) and `num_items_in_batch`, and stands
            for the cross entropy of both branches and of the ascent, for example with class weights.
        compute_metrics: takes an `EvalPrediction` with logits (N, K) and labels (N,).
        preprocess_logits_for_metrics: takes logits (B, K) and labels (B,), for each branch.
        kwargs: as for `transformers.Trainer`.

    Raises:
        InputError: if model or arguments are of another kind, the number of perturbations does not fit the batch size
            and the number of processes, the best checkpoint of an adapted model is to be loaded, or one process sees
            several GPUs.

    Example:
        >>> import tempfile, torch
        >>> from transformers import ResNetConfig, ResNetForImageClassification
        >>> tiny = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=2)
        >>> model = AdvBNForImageClassification.from_backbone(ResNetForImageClassification(tiny))
        >>> rows = [{"pixel_values": torch.randn(3, 32, 32), "label": row % 2} for row in range(8)]
        >>> folder = tempfile.mkdtemp()
        >>> args = AdvBNTrainingArguments(folder, max_steps=2, use_cpu=True, report_to="none", save_strategy="no")
        >>> trainer = AdvBNTrainer(model, args, train_dataset=rows, eval_dataset=rows)
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {...}
        2
        >>> trainer.save_model()
        >>> sorted(path.name for path in Path(folder).glob("*/model.safetensors"))
        ['model.safetensors']
    """

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: AdvBNForImageClassification | None = None,
        args: AdvBNTrainingArguments | None = None,
        *,
        model_init: Callable[..., AdvBNForImageClassification] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Metrics | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            args = AdvBNTrainingArguments()
        check_arguments_kind(args)
        if compute_loss_func is not None and args.label_smoothing_factor:
            raise InputError("label_smoothing_factor: compute_loss_func stands for the smoothed loss; leave out one")
        if model_init is None:
            self._prepare_model(model, args)
        elif model is not None:
            raise InputError("model_init: is called in the place of a model; give one of both")
        if preprocess_logits_for_metrics is not None:
            kwargs["preprocess_logits_for_metrics"] = preprocess_each_branch(preprocess_logits_for_metrics)
        kwargs |= {"model_init": model_init, "compute_loss_func": compute_loss_func}
        super().__init__(model, args, compute_metrics=compute_metrics or accuracy, **kwargs)
        if args.ema_decay is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise InputError("ema_decay: FSDP and DeepSpeed share weights among processes; leave it out")
        self._check_given_optimizer(args)
        self._fixed = FixedArguments(args)
        self._steps = StepLog()
        self._seeded_step: int | None = None
        self._losses = LossWatch(args.device)
        self._stop_after_step = StopAfterStep()
        self.add_callback(self._stop_after_step)
        self.add_callback(SetEpochCallback())
        self.average = WeightAverage(args.ema_decay)
        self.add_callback(self.average)

    @staticmethod
    def _prepare_model(model: AdvBNForImageClassification, args: AdvBNTrainingArguments) -> None:
        """Checks a model, and sets it up as the arguments ask."""
        check_trainable(model, args)
        if args.ddp_find_unused_parameters is None:  # looking for them costs time in each step
            args.ddp_find_unused_parameters = bool(args.world_size > 1 and unused_weights(model.backbone))
        if args.sync_batchnorm:
            model.synchronize_batch_norms()
        if args.compile_tail:
            model.split.compile_tail()

    def call_model_init(self, trial: Any = None) -> AdvBNForImageClassification:
        """As `Trainer.call_model_init`, but optional arguments may be several; sets the model up."""
        parameters = signature(self.model_init).parameters.values()
        optional = all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
        model = self.model_init() if optional and len(parameters) > 1 else super().call_model_init(trial)
        self._prepare_model(model, self.args)
        return model

    def get_train_dataloader(self) -> DataLoader:
        """As `Trainer.get_train_dataloader`; stored stem features and streams make batches in their own way."""
        if isinstance(self.train_dataset, StreamedImageDataset):
            return load_stream(self.train_dataset, self.args, self.data_collator)
        collator = self.data_collator
        if isinstance(self.train_dataset, StemFeatures):
            self.data_collator = self.train_dataset.collate
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """As `Trainer.train`; every process ends with the same model.

        Called again, also after an error, it trains the weights as they are, as a new trainer would: with another
        optimiser, schedule and log. An optimiser that was given to the trainer stays.

        Ctrl-C and SIGTERM end it after the current step: a checkpoint is saved, then `KeyboardInterrupt` raised.

        Args:
            resume_from_checkpoint: a checkpoint of this run, or True or "last" for the last complete one.
            trial: of a hyperparameter search, whose arguments stay.
            ignore_keys_for_eval: outputs that evaluations leave out, such as "auxiliary_logits".

        Raises:
            InputError: if all weights are frozen, the checkpoint is not complete or another optimiser's, the loss or
                the weights are not finite, the disk is full, or an argument was changed that the trainer read when it
                was made.
        """
        check_learns(self.model)
        check_trainable(self.unwrapped, self.args)  # both may have been changed since the last training
        self._fixed.check(self.args)
        if not self.args.auto_find_batch_size:
            self._train_batch_size = self.args.train_batch_size
        self._drop_own_optimizer()
        try:
            with self._resuming(resume_from_checkpoint) as checkpoint, self._stop_after_step.listening():
                output = super().train(checkpoint, trial, ignore_keys_for_eval)
        finally:
            if trial is not None:  # Trainer has set its arguments, and read them
                self._fixed = FixedArguments(self.args)
            self.unwrapped.manual_seed(None)
            self.is_in_train = False
        self.average.end(self.unwrapped, keep_weights=self.best_loaded_at is not None)
        self._share_statistics()
        return output

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As in `Trainer`, also where `auto_find_batch_size` starts over: forgets the steps before."""
        self._seeded_step = None
        self.current_flos = 0
        self._steps.clear()
        self._losses.reset()
        return super().set_initial_training_values(*args, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward pass; random starts depend on the seed and the step alone, so resuming is exact."""
        if self._seeded_step != self.state.global_step:
            self._seeded_step = self.state.global_step
            seed = np.random.SeedSequence([self.args.seed, self.state.global_step]).generate_state(1, np.uint64)[0]
            self.unwrapped.manual_seed(int(seed))
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        except ValueError as error:
            if isinstance(error, InputError) or len(inputs["labels"]) > 1:
                raise
            raise InputError(
                f"step {self.state.global_step + 1}: its batch is a single image, too few for a batch norm; "
                "set dataloader_drop_last, or another per_device_train_batch_size"
            ) from error

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As in `Trainer`, for both branches; of the averaged weights while training with `ema_decay`."""
        with self.average.in_place_of_weights(self.unwrapped):
            return super().evaluation_loop(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The method's loss in training; the clean branch's, with the logits of both branches, in evaluation."""
        check_columns(inputs, stored=isinstance(self.train_dataset, StemFeatures))
        settings = {"smoothing": self.args.label_smoothing_factor}
        if self.compute_loss_func is not None:
            settings["loss_function"] = partial(self._given_loss, num_items_in_batch)
        if not model.training:
            output = model(**inputs, branch="both", **settings)
            # Trainer takes all but the loss for predictions.
            kept = {"loss": output.loss, "logits": output.logits, "auxiliary_logits": output.auxiliary_logits}
            return (output.loss, kept) if return_outputs else output.loss
        if "labels" not in inputs:
            raise InputError("train_dataset: its rows have no labels; they need pixel_values and labels, or label")
        measure_ascent = ascent_is_logged(self.args, self.state)
        output = model(**inputs, **settings, measure_ascent=measure_ascent)
        self._steps.note(output, inputs["labels"])
        self._losses.note(output.loss, self.state.global_step + 1)
        return (output.loss, output) if return_outputs else output.loss

    def _given_loss(self, num_items_in_batch: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """What `compute_loss_func` makes of one branch's logits."""
        return self.compute_loss_func(AdvBNOutput(logits=logits), labels, num_items_in_batch=num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last log of what the method computes beside its loss.

        Raises:
            InputError: if the loss was not finite since the last log, unless loss scaling has skipped those steps and
                the weights and running statistics are finite.
        """
        if "loss" in logs:
            logs |= self._steps.means(self.accelerator)
        super().log(logs, start_time)
        if "loss" in logs:
            self._losses.check(self.accelerator, self.unwrapped)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes both branches, the settings and `training_args.json`; only `push_to_hub` uploads.

        `training_args.bin` is left out: it is a pickle that holds the Hub token.

        Raises:
            InputError: if a weight or a running statistic is not finite.
        """
        check_weights(self.unwrapped, self.state.global_step)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        logger.info(f"Saving model checkpoint to {folder}")
        with self.average.in_place_of_weights(self.unwrapped):
            self.unwrapped.save_pretrained(folder, processor=self.processing_class, card=card_of_run(self))
        write_atomically(folder / ARGUMENTS_FILE, self.args.to_json_string())

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Checks login and permission. The first upload creates the repository, so that it is never empty."""
        if self.is_world_process_zero():
            self.hub_model_id = check_access(self.args, token=token, private=private)

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        create_pr: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future | None:
        """Saves the model and uploads what belongs on the Hub from the output folder, as one commit.

        Args:
            commit_message: first line of the commit.
            blocking: whether to wait for the upload.
            token: a write token; by default `hub_token`, `HF_TOKEN` or the login.
            revision: branch to commit to; by default `hub_revision`.
            private: whether a new repository is private; by default `hub_private_repo`.
            create_pr: open a pull request instead of committing to the branch.
            kwargs: for `create_model_card`.

        Returns:
            The commit, None where nothing had changed; a future of that if not `blocking`.

        Raises:
            InputError: as `advbn_hf.hub.upload_checkpoint`, or an argument would make an invalid card.
            ConnectionError: the Hub failed or was not reached.
        """
        if kwargs:
            self.create_model_card(**kwargs)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model()
        if not self.is_world_process_zero():
            return None
        if self.push_in_progress is not None:
            self.push_in_progress.wait_until_done()
        upload = upload_checkpoint if blocking else upload_in_background
        given = {"token": token, "revision": revision, "private": private, "create_pr": create_pr}
        options = options_from(self.args, commit_message=commit_message, **given)
        return upload(self.args.output_dir, self.hub_model_id, **options)
