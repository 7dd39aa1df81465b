"""Arguments of a small job of `recipes/finetune.py` on folders."""

import numpy as np
import pytest
from builders import tiny_resnet
from PIL import Image
from transformers import ViTImageProcessorPil

FAST = ["--max_steps", "2", "--per_device_train_batch_size", "8", "--report_to", "none", "--use_cpu", "true"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An imagefolder of 5 classes with two splits, and a small model with its processor."""
    root = tmp_path_factory.mktemp("job")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 2)):
        for name in ("ant", "bee", "cat", "dog", "eel"):
            (root / "data" / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8))
                image.save(root / "data" / split / name / f"{index}.png")
    tiny_resnet(num_labels=5).save_pretrained(root / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(root / "model")
    return root


def job(folders, output, *options):
    paths = ["--model_name_or_path", folders / "model", "--dataset_name", folders / "data", "--output_dir", output]
    return [str(argument) for argument in (*paths, *FAST, *options)]
