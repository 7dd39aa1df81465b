"""`AdvBNForImageClassification`: a Transformers classifier that is trained on the worst style of its own features."""

import dataclasses
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .backbones.activation_checkpointing import ActivationCheckpointing, recomputed_within
from .backbones.adapters import without_wrapper
from .backbones.attributes import BackboneAttributes
from .backbones.checks import check_backbone
from .backbones.loading import load_classifier
from .backbones.model_outputs import logits_of
from .backbones.norms import (
    BRANCHES,
    Branch,
    check_synchronizable,
    fewest_images,
    split_norms,
    using_branch,
)
from .backbones.split import Recording, Split
from .backbones.tracing import evaluating
from .config import AdvBNConfig
from .errors import InputError
from .hub.metadata import is_on_hub
from .method.attack import attack
from .method.losses import AdvBNOutput, LossFunction, Objective, two_branch_output
from .method.share import split_rows
from .pretrained import PretrainedBranches
from .utils.one_thread import OneThread


class AdvBNForImageClassification(PretrainedBranches, ActivationCheckpointing, BackboneAttributes):
    """Wraps a Transformers image classifier for training with Adversarial Batch Normalization.

    Use `from_backbone` on a plain classifier and `from_pretrained` on a checkpoint that this class wrote.

    Weights that are frozen stay frozen, those of norms in both branches. A model that PEFT has adapted
    (`get_peft_model`, `model.add_adapter`) is trained as it is, and exported and saved with its adapters merged. PEFT
    freezes norms: name them in its `modules_to_save` where the branches shall learn different ones.

    In eval mode several threads may call one model, in any branch. In train mode one thread may.

    Args:
        backbone: a classifier that takes `pixel_values` (B, C, H, W) and returns logits; it is changed in place.
        config: where and how strongly to perturb.

    Raises:
        InputError: if the insertion module does not exist or has no usable feature map, or the model is quantised or
            no single-label classifier.

    Example:
        >>> from transformers import ResNetConfig, ResNetForImageClassification
        >>> tiny = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
        >>> model = AdvBNForImageClassification.from_backbone(ResNetForImageClassification(tiny))
        >>> model.advbn_config.insert_after
        'resnet.embedder'
        >>> images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
        >>> model.train()(images, labels).loss.backward()
        >>> model.eval()(images, branch="both").auxiliary_logits.shape
        torch.Size([4, 3])
        >>> type(model.export("auxiliary")).__name__
        'ResNetForImageClassification'
    """

    accepts_loss_kwargs = False  # the loss is a mean over the batch: Trainer must divide it when it accumulates
    main_input_name = "pixel_values"

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        super().__init__()
        backbone = without_wrapper(backbone)
        check_backbone(backbone)
        self.split = Split(backbone, config.insert_after)
        self.backbone = backbone
        # Asked now, while a folder by that name is still there.
        self.finetuned_from = name if is_on_hub(name := backbone.config.name_or_path) else None
        self._config = dataclasses.replace(config, insert_after=self.split.insert_after)
        # Of random starts and of `adversarial_share` alone; two, so that each draws row after row.
        self.generator, self.row_generator = torch.Generator(), torch.Generator()
        self.manual_seed(None)
        self._one_thread = OneThread()
        self._fewest_images = fewest_images(backbone)
        if config.freeze_stem:
            for weight in self.split.stem_weights:
                weight.requires_grad_(False)
        if config.auxiliary_norms:
            split_norms(backbone, skip=self.split.stem_modules)
        self.train(backbone.training)

    def manual_seed(self, seed: int | None) -> None:
        """Seeds random starts and the choice of adversarial images; `AdvBNTrainer` does so at every step.

        Args:
            seed: an ascent then leaves every other random number as it was. None, as at first: they come from torch's
                own random numbers, as dropout's do, so that `set_seed` and Accelerate's `load_state` govern them.
        """
        self._drawn_seed = None if seed is not None else ~torch.initial_seed() % 2**62  # nobody else takes it
        for generator in (self.generator, self.row_generator):
            generator.manual_seed(self._drawn_seed if seed is None else seed)

    def _draw_seed(self) -> None:
        """Seeds both generators from torch's random numbers, unless somebody has seeded them."""
        if self.generator.initial_seed() == self._drawn_seed:
            self.manual_seed(int(torch.randint(2**62, ())))
            self._drawn_seed = self.generator.initial_seed()

    @classmethod
    def from_backbone(
        cls, backbone: str | Path | PreTrainedModel, config: AdvBNConfig | None = None, **kwargs: Any
    ) -> Self:
        """Wraps a plain classifier.

        Args:
            backbone: Hub id or folder of a Transformers image classifier, or such a model, adapted by PEFT or not,
                which is changed in place.
            config: settings; `AdvBNConfig()` by default.
            kwargs: for `AutoModelForImageClassification.from_pretrained`, where `backbone` is an id or folder.

        Raises:
            InputError: if the model cannot be loaded, has no classification head, or cannot be cut as asked.
        """
        if not isinstance(backbone, nn.Module):
            backbone = load_classifier(backbone, **kwargs)
        elif kwargs:
            raise InputError(f"{next(iter(kwargs))}: is of loading, and the backbone is a model already; leave it out")
        return cls(backbone, config or AdvBNConfig())

    @property
    def advbn_config(self) -> AdvBNConfig:
        """The current settings, `insert_after` as a module path; may be replaced between steps.

        What is fixed at construction must stay: `dataclasses.replace(model.advbn_config, ...)` keeps it.

        Raises:
            InputError: if `insert_after`, `auxiliary_norms` or `freeze_stem` differs from the model's.
        """
        return self._config

    @advbn_config.setter
    def advbn_config(self, config: AdvBNConfig) -> None:
        place = self.split.named_places.get(config.insert_after) or config.insert_after
        config = dataclasses.replace(config, insert_after=place)
        if difference := self._config.difference_in_structure(config):
            name, built_in, wanted = difference
            raise InputError(
                f"{name} is {built_in} since the model's construction, not {wanted}; wrap the backbone again"
            )
        self._config = config

    def train(self, mode: bool = True) -> Self:
        """Sets train or eval mode; a frozen stem stays in eval mode, so that its running statistics stay too."""
        super().train(mode)
        if self._config.freeze_stem:
            for module in self.split.stem_modules:
                module.eval()
        return self

    def synchronize_batch_norms(self) -> None:
        """Lets batch norms, of both branches, take their statistics over all processes; that needs GPUs.

        Raises:
            InputError: if a batch norm does more than torch's own, since it would lose that.
        """
        check_synchronizable(self.backbone)
        nn.SyncBatchNorm.convert_sync_batchnorm(self.backbone)
        self.split.find_stem()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        branch: Branch | Literal["both"] = "clean",
        smoothing: float = 0.0,
        measure_ascent: bool = False,
        recording: Recording | None = None,
        auxiliary_pixel_values: Tensor | None = None,
        loss_function: LossFunction | None = None,
    ) -> AdvBNOutput:
        """In train mode with labels: both losses of the method. Else: the logits of one branch, or of both.

        Args:
            pixel_values: (B, C, H, W).
            labels: (B,) int64 in 0..K-1, or (B, K) float, probabilities, as MixUp and CutMix make them.
            branch: "clean", "auxiliary", or "both" for the logits of both with the stem run once.
            smoothing: label smoothing of every cross entropy, in 0..1.
            measure_ascent: whether ascent statistics are returned, at the cost of two tail passes; in train mode only.
            recording: in train mode instead of images: the frozen stem's outputs (see `stem_cache`).
            auxiliary_pixel_values: in train mode, the images that are perturbed and that the auxiliary branch sees;
                like `pixel_values`, which it sees by default. The stem runs once more.
            loss_function: of logits and labels, in the place of every cross entropy.

        Returns:
            An `AdvBNOutput`.

        Raises:
            InputError: if there is no such branch, or one is named in train mode with labels.
            RuntimeError: if another thread runs the same model in train mode.
        """
        objective = None if labels is None else Objective(labels, smoothing, measure_ascent, loss_function)
        with self._one_thread.held() if self.training else nullcontext():
            if not self.training or objective is None:
                return self._branch_output(pixel_values, objective, branch)
            if branch != "clean":
                raise InputError("branch: the method's loss is of both branches; leave it out, or call eval() before")
            self._draw_seed()
            recording = recording or self._recording(pixel_values)
            if auxiliary_pixel_values is None:
                return self.training_output(recording, objective)
            return self.training_output(recording, objective, self._recording(auxiliary_pixel_values))

    def _recording(self, pixel_values: Tensor) -> Recording:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._config.freeze_stem):
            return self.split.stem(pixel_values=pixel_values)

    def _branch_output(
        self, pixel_values: Tensor, objective: Objective | None, branch: Branch | Literal["both"]
    ) -> AdvBNOutput:
        """The logits of one branch, or of both, and the loss of the first."""
        if branch == "both":
            recording = self.split.stem(pixel_values=pixel_values)
            logits, auxiliary_logits = (self.tail_logits(recording, None, name) for name in BRANCHES)
        else:
            auxiliary_logits = None
            in_branch = partial(using_branch, branch)
            with recomputed_within(self.backbone, in_branch), in_branch():
                logits = logits_of(self.backbone(pixel_values=pixel_values))
        loss = None if objective is None else objective.loss(logits)
        return AdvBNOutput(loss=loss, logits=logits, auxiliary_logits=auxiliary_logits)

    def training_output(
        self, recording: Recording, objective: Objective, auxiliary_recording: Recording | None = None
    ) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)), section 3.2 of the paper.

        Args:
            recording: the stem's outputs.
            objective: labels, smoothing, and whether the ascent is measured.
            auxiliary_recording: those of the images that the auxiliary branch sees, if it sees others.

        Returns:
            An `AdvBNOutput` with the logits and the loss of each branch.
        """
        views = recording, auxiliary_recording or recording
        clean, attacked = ((view, objective) for view in views)
        fields: dict[str, Tensor] = {}
        if (rows := self._split_rows(len(objective.labels))) is not None:
            clean, attacked = (
                (view.rows(index), objective.rows(index)) for view, index in zip(views, rows, strict=True)
            )
            fields = dict(zip(("clean_rows", "adversarial_rows"), rows, strict=True))
        adversarial, ascent = self.perturb(*attacked)
        auxiliary_logits = self.tail_logits(attacked[0], adversarial, "auxiliary")
        logits = self.tail_logits(clean[0], None, "clean")
        return two_branch_output(logits, auxiliary_logits, clean[1], attacked[1], **fields, **(ascent or {}))

    def _split_rows(self, batch_size: int) -> tuple[Tensor, Tensor] | None:
        """The images of each branch, clean and adversarial; None where all go through both."""
        if self._config.adversarial_share == 1:
            return None
        rows = split_rows(batch_size, self._config.adversarial_fraction, self.row_generator)
        if min(map(len, rows)) < self._fewest_images:
            return None
        return tuple(index.to(self.device, non_blocking=True) for index in rows)

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Finds the multipliers that maximise the auxiliary branch's loss and applies them.

        Args:
            recording: the stem's outputs, with features (B, C, H, W), (B, H, W, C) or (B, N, C).
            objective: the loss that is maximised, and whether the ascent is measured.

        Returns:
            The perturbed features, like the features, and the ascent statistics (see `attack`) or None.
        """

        def loss_of(seen: Recording, features: Tensor, rows: Tensor | None) -> Tensor:
            of_rows = objective if rows is None else objective.rows(rows)
            # The sum, since a sign step needs no scale, and a mean's gradients can vanish in half precision.
            return of_rows.loss(self.tail_logits(seen, features, "auxiliary"), "sum")

        with evaluating(self.backbone):
            return attack(
                loss_of,
                recording,
                self._config,
                self.generator,
                rectify=self.split.rectified,
                channel_axis=self.split.channel_axis,
                other_tokens=self.split.other_tokens,
                measure=objective.measure_ascent,
            )

    def tail_logits(self, recording: Recording, features: Tensor | None, branch: Branch) -> Tensor:
        """Logits (B, K) of one branch's tail on given features, or on the recorded ones."""
        return logits_of(self.split.tail(recording, features, partial(using_branch, branch)))


class PlainForImageClassification(AdvBNForImageClassification):
    """A classifier cut as for AdvBN whose tail is trained on clean features alone, with `AdvBNTrainer` or by hand.

    Wrap with `AdvBNConfig(auxiliary_norms=False)`: without adversarial features an auxiliary branch learns nothing.
    """

    has_card = False

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        super().__init__(backbone, dataclasses.replace(config, adversarial_share=1.0))  # no batch is too small

    def training_output(
        self, recording: Recording, objective: Objective, auxiliary_recording: Recording | None = None
    ) -> AdvBNOutput:
        """CE(tail(f)); nothing is perturbed, so there is no ascent to measure.

        Raises:
            InputError: if there are images for an auxiliary branch.
        """
        if auxiliary_recording is not None:
            raise InputError(f"auxiliary_pixel_values: {type(self).__name__} has no auxiliary branch; leave them out")
        logits = self.tail_logits(recording, None, "clean")
        loss = objective.loss(logits)
        return AdvBNOutput(loss=loss, logits=logits, clean_loss=loss)
