"""Options of the augmentation: what they make of an image, what the clean branch sees, what a card says."""

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform
from advbn_hf.errors import InputError
from advbn_hf.training.augmentation import AugmentationArguments

PROCESSOR = ViTImageProcessorPil(size={"height": 32, "width": 40})
IMAGE = Image.linear_gradient("L").resize((60, 50))


@pytest.mark.parametrize("options", [{"augmentation": "none"}, {"augment": False}])
def test_none_is_the_processor_alone(options):
    assert type(AugmentationArguments(**options).transform(PROCESSOR)) is EvaluationTransform


def test_every_option_reaches_the_transform():
    options = AugmentationArguments("prime", 2, augmented_branch="clean", crop_flip=False)
    views = []
    for transform in (options.transform(PROCESSOR), TrainingTransform(PROCESSOR, "prime", "clean", False, 2)):
        torch.manual_seed(3)
        views.append(transform(IMAGE))
    assert all(torch.equal(value, views[1][name]) for name, value in views[0].items())


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"augmentation": "prime", "augmentation_times": 2}, {"augmentation": "prime", "augmentation_times": 2}),
        ({"augmentation": "prime", "augmented_branch": "clean"}, {"augmentation": "prime"}),
        ({"augmentation": "prime", "augmentation_times": 2, "augmented_branch": "auxiliary"}, {}),
        (
            {"augmentation": "prime", "augmented_branch": "auxiliary", "crop_flip": False},
            {"augmentation": "none"},
        ),
    ],
)
def test_the_clean_branch_has_what_is_given_to_it(options, seen):
    assert AugmentationArguments(**options).of_clean_branch() == AugmentationArguments(**seen)


def test_a_card_says_what_is_not_usual():
    assert AugmentationArguments().reported() == AugmentationArguments("none").reported() == {}
    assert AugmentationArguments("prime").reported() == {"augmentation": "prime"}
    unusual = {"augmentation_times": 3, "augmented_branch": "auxiliary", "crop_flip": False}
    assert AugmentationArguments("prime", **unusual).reported() == {"augmentation": "prime"} | unusual


@pytest.mark.parametrize("augmentation", ["crop_flip", "none"])
@pytest.mark.parametrize("setting", [{"augmented_branch": "clean"}, {"augmentation_times": 2}])
def test_settings_of_nothing_are_refused(augmentation, setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))}: .* needs an augmentation"):
        AugmentationArguments(augmentation, **setting)
