"""How a fine-tuning augments its training images, as options of the recipe."""

import dataclasses
from dataclasses import dataclass, field

from transformers import BaseImageProcessor

from ..data.augmentation.named import AUGMENTATIONS, augmentation_called
from ..data.transforms import AUGMENTED_BRANCHES, EvaluationTransform, TrainingTransform, check_crop_flip
from ..errors import InputError, check_choice

_WITHOUT_SETTINGS = ("crop_flip", "none")


@dataclass
class AugmentationArguments:
    """What training images go through.

    Raises:
        InputError: a value is out of its range, the options contradict each other, or torchvision is missing.

    Example:
        >>> AugmentationArguments(augmentation="prime", augmentation_times=2).reported()
        {'augmentation': 'prime', 'augmentation_times': 2}
    """

    augmentation: str = field(
        default="crop_flip",
        metadata={
            "help": f"What training images go through: {', '.join(AUGMENTATIONS)} (after crop and flip) or none."
        },
    )
    augmentation_times: int = field(
        default=1,
        metadata={"help": "How often it is applied, each time to the result of the last; more is stronger."},
    )
    augmented_branch: str = field(
        default="both",
        metadata={"help": "Which branch sees augmented images: both, auxiliary or clean; the other sees crop_flip's."},
    )
    crop_flip: bool = field(
        default=True,
        metadata={"help": "Crop and flip before the augmentation; false where that changes the class, as of digits."},
    )
    augment: bool = field(default=True, metadata={"help": "false is the same as augmentation none."})

    def __post_init__(self) -> None:
        check_choice("augmentation", self.augmentation, (*AUGMENTATIONS, "none"))
        check_choice("augmented_branch", self.augmented_branch, AUGMENTED_BRANCHES)
        if not self.augment:
            if self.augmentation not in _WITHOUT_SETTINGS:
                raise InputError(f"augment: false contradicts augmentation {self.augmentation}; leave out one")
            self.augmentation = "none"
        check_crop_flip(self.crop_flip, self.augmentation)
        if self.augmentation not in _WITHOUT_SETTINGS:
            augmentation_called(self.augmentation, self.augmentation_times)
        elif unusual := self._unusual("augmented_branch", "augmentation_times"):
            name, value = unusual.popitem()
            raise InputError(
                f"{name}: {value} needs an augmentation beyond crop and flip, such as --augmentation prime"
            )

    def transform(self, processor: BaseImageProcessor) -> TrainingTransform | EvaluationTransform:
        """What makes the model's input of an image.

        Args:
            processor: the model's image processor.

        Raises:
            InputError: the processor gives images no fixed size.
        """
        if self.augmentation == "none":
            return EvaluationTransform(processor)
        return TrainingTransform(
            processor, self.augmentation, self.augmented_branch, self.crop_flip, self.augmentation_times
        )

    def of_clean_branch(self) -> "AugmentationArguments":
        """What the clean branch alone sees, for what is trained plainly."""
        if self.augmented_branch == "auxiliary":
            left = "crop_flip" if self.crop_flip else "none"
            return AugmentationArguments(augmentation=left)
        return dataclasses.replace(self, augmented_branch="both")

    def reported(self) -> dict[str, str | int]:
        """What a model card reports: nothing where it is crop and flip or none."""
        if self.augmentation in _WITHOUT_SETTINGS:
            return {}
        unusual = self._unusual("augmentation_times", "augmented_branch", "crop_flip")
        return {"augmentation": self.augmentation} | unusual

    def _unusual(self, *names: str) -> dict[str, str | int]:
        """Those fields that do not have their defaults."""
        return {name: value for name in names if (value := getattr(self, name)) != getattr(type(self), name)}
