"""Non-finite numbers: training continues where it can, else stops and names the step; no NaN is saved."""

import dataclasses
import math

import pytest
import torch
from builders import rows, tiny_convnext, tiny_resnet
from safetensors.torch import load_file
from trainers import trainer_of
from transformers import TrainerCallback

from advbn_hf import AdvBNConfig, InputError
from advbn_hf.training.checkpoints import last_complete_checkpoint

PER_BATCH = dataclasses.replace(AdvBNConfig.paper(), num_perturbations=1)
EVERY_SETTING = pytest.mark.parametrize("config", [AdvBNConfig(), PER_BATCH], ids=["per sample", "per batch"])
EVERY_MODEL = pytest.mark.parametrize("model", [tiny_resnet, tiny_convnext])


def all_finite(folder):
    files = list(folder.rglob("*.safetensors"))
    assert files
    return all(value.isfinite().all() for file in files for value in load_file(file).values())


def with_bad_pixel(value, row=20):
    """Images of which one has a pixel that is not finite; batches of 8 in this order meet it in the third step."""
    data = rows(32)
    data[row]["pixel_values"] = data[row]["pixel_values"].clone()
    data[row]["pixel_values"][0, 5, 5] = value
    return data


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
@pytest.mark.parametrize("logging_steps", [1, 3, 100])
@EVERY_MODEL
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, value, logging_steps, model):
    trainer = trainer_of(
        tmp_path,
        model=model(),
        data=with_bad_pixel(value),
        max_steps=8,
        logging_steps=logging_steps,
        save_strategy="steps",
        save_steps=2,
        train_sampling_strategy="sequential",
    )
    with pytest.raises(InputError) as stopped:
        trainer.train()
    assert "step 3" in str(stopped.value) or "step 4" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    with pytest.raises(InputError, match=r"after step \d"):
        trainer.save_model()
    assert all_finite(tmp_path)


def test_a_learning_rate_too_high_stops_naming_the_step(tmp_path):
    settings = {"learning_rate": 1e30, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    trainer = trainer_of(tmp_path, max_steps=8, save_strategy="steps", save_steps=1, **settings)
    with pytest.raises(InputError, match=r"(since|after) step [1-8].*lower learning_rate"):
        trainer.train()
    assert all_finite(tmp_path) if list(tmp_path.rglob("*.safetensors")) else True


class Watch(TrainerCallback):
    """Which steps changed the weights."""

    def __init__(self):
        self.before, self.learned = None, []

    def on_step_end(self, args, state, control, model, **kwargs):
        after = [weight.detach().clone() for weight in model.parameters()]
        if self.before is not None and not all(map(torch.equal, self.before, after)):
            self.learned.append(state.global_step)
        self.before = after

    on_train_begin = on_step_end


def half_precision(*arguments, scale, **settings):
    """A run in float16 with torch's loss scaler, both real: Accelerate takes them on GPUs alone, unless given them."""
    trainer = trainer_of(*arguments, fp16=True, train_sampling_strategy="sequential", callbacks=[Watch()], **settings)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainer.accelerator.native_amp = True
    return trainer


def losses_of(trainer):
    return {log["step"]: log["loss"] for log in trainer.state.log_history if "loss" in log}


@pytest.mark.slow
@EVERY_MODEL
def test_gradients_beyond_half_precision_cost_steps_and_no_more(tmp_path, model):
    trainer = half_precision(tmp_path, model=model(), data=rows(32), max_steps=24, scale=2.0**26)
    trainer.train()
    learned = trainer.pop_callback(Watch).learned
    norms = {log["step"]: log["grad_norm"] for log in trainer.state.log_history if "loss" in log}
    assert learned == [step for step, norm in norms.items() if math.isfinite(norm)]
    assert 8 < len(learned) < learned[-1]
    assert learned[0] > 2
    assert trainer.accelerator.scaler.get_scale() == 2.0 ** (26 - 24 + len(learned))
    assert all(math.isfinite(loss) for loss in losses_of(trainer).values())
    trainer.save_model()
    assert all_finite(tmp_path)


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_a_loss_beyond_half_precision_is_skipped_and_named(tmp_path, monkeypatch, logging_steps):
    warnings = []
    monkeypatch.setattr("advbn_hf.training.nonfinite.logger.warning", warnings.append)
    settings = {"data": with_bad_pixel(1e6), "max_steps": 6, "scale": 1.0, "logging_steps": logging_steps}
    trainer = half_precision(tmp_path, model=tiny_convnext(), **settings)
    trainer.train()
    assert trainer.pop_callback(Watch).learned == [1, 2, 4, 5, 6]
    assert len(warnings) == 1
    assert "step 3" in warnings[0]
    assert all(math.isfinite(loss) for loss in losses_of(trainer).values())
    trainer.save_model()
    assert all_finite(tmp_path)


def test_running_statistics_that_take_in_an_overflow_stop_the_run(tmp_path):
    """A batch norm's running statistics include the skipped step, and stay non-finite."""
    settings = {"max_steps": 50, "save_strategy": "steps", "save_steps": 2}
    trainer = half_precision(tmp_path, model=tiny_resnet(), data=with_bad_pixel(1e6), scale=1.0, **settings)
    with pytest.raises(InputError, match=r"running_mean .* step 3") as stopped:
        trainer.train()
    assert "\n" not in str(stopped.value)
    assert trainer.state.global_step == 3
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert all_finite(tmp_path)


@EVERY_SETTING
@EVERY_MODEL
@pytest.mark.parametrize("kind", ["black", "white", "one grey", "copies", "one class", "huge"])
def test_images_without_contrast_and_classes_that_never_occur(tmp_path, kind, model, config):
    """Zero images give features of zero variance, and in a ResNet even zero features."""
    data = rows(16)
    for index, row in enumerate(data):
        row["labels"] = 3 if kind == "one class" else row["labels"]
        image = {
            "black": torch.zeros(3, 32, 32),
            "white": torch.ones(3, 32, 32),
            "one grey": torch.full((3, 32, 32), index / 16),
            "copies": data[0]["pixel_values"],
            "one class": row["pixel_values"],
            "huge": row["pixel_values"] * 1e4,
        }[kind]
        row["pixel_values"] = image
    trainer = trainer_of(tmp_path, model=model(), config=config, data=data, max_steps=3)
    trainer.train()
    trainer.save_model()
    assert all_finite(tmp_path)
    assert all(log["loss"] < 1e6 for log in trainer.state.log_history if "loss" in log)


@pytest.mark.slow
@EVERY_SETTING
@pytest.mark.parametrize("size", [32, 64])
@EVERY_MODEL
def test_batches_of_one_image(tmp_path, model, size, config):
    """Features of one pixel have no deviation: then a batch norm cannot learn, and the step is named."""
    data = rows(9, size=size)
    settings = {"max_steps": 4, "train_sampling_strategy": "sequential", "per_device_train_batch_size": 4}
    trainer = trainer_of(tmp_path, model=model(), config=config, data=data, **settings)
    if model is tiny_resnet and size == 32:
        with pytest.raises(InputError, match=r"step 3: its batch is a single image.*dataloader_drop_last"):
            trainer.train()
        trainer = trainer_of(tmp_path, model=model(), config=config, data=data, dataloader_drop_last=True, **settings)
    trainer.train()
    trainer.save_model()
    assert trainer.state.global_step == 4
    assert all_finite(tmp_path)


def test_bfloat16_has_the_range_of_float32(tmp_path):
    """Images that would overflow float16 train."""
    data = [row | {"pixel_values": row["pixel_values"] * 1e6} for row in rows(16)]
    trainer = trainer_of(tmp_path, data=data, bf16=True, max_steps=3)
    trainer.train()
    trainer.save_model()
    assert all_finite(tmp_path)
