"""What people do with a Trainer beside its options: loops of their own, soft labels, errors, running out of memory."""

from itertools import pairwise

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from builders import images_and_labels, rows
from parity import arguments, logged, wrap
from transformers import TrainerCallback

from advbn_hf import AdvBNTrainer
from advbn_hf.errors import InputError


@pytest.mark.parametrize(
    ("settings", "decays"),
    [
        ({"max_steps": 9, "lr_decay_epochs": 1}, [4, 8]),
        ({"max_steps": 9, "lr_decay_epochs": 1, "gradient_accumulation_steps": 2}, [2, 4, 6, 8]),
        ({"max_steps": -1, "num_train_epochs": 3, "lr_decay_epochs": 2}, [8]),
    ],
)
def test_the_learning_rate_decays_by_epochs_whatever_ends_the_training(settings, decays, tmp_path):
    args = arguments(tmp_path, learning_rate=1.0, optim="sgd", **settings)
    trainer = AdvBNTrainer(wrap(), args, train_dataset=rows(16))
    trainer.train()
    rates = list(pairwise(logged(trainer, "learning_rate")))
    assert [step for step, (before, after) in enumerate(rates, 1) if after < 0.5 * before] == decays


class Once(TrainerCallback):
    """Raises an error after one step, the first time."""

    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_step_end(self, args, state, control, **kwargs):
        if self.error is not None and state.global_step == self.step:
            error, self.error = self.error, None
            raise error


def test_what_is_logged_after_an_error_is_of_the_training_alone(tmp_path):
    settings = {"logging_steps": 4, "learning_rate": 0.0}
    failing = AdvBNTrainer(wrap(), arguments(tmp_path, **settings), train_dataset=rows(16),
                           callbacks=[Once(3, ValueError("a cell that fails"))])  # fmt: skip
    with pytest.raises(ValueError, match="a cell"):
        failing.train()
    failing.train()
    undisturbed = AdvBNTrainer(wrap(), arguments(tmp_path, **settings), train_dataset=rows(16))
    undisturbed.train()
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
    for one, other in zip(failing.state.log_history, undisturbed.state.log_history, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_a_batch_size_that_was_found_is_as_good_as_given(tmp_path):
    class TooLarge(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.train_batch_size >= 8:
                raise RuntimeError("CUDA out of memory.")

    settings = {"max_steps": 1, "learning_rate": 0.0, "train_sampling_strategy": "sequential"}
    found = AdvBNTrainer(
        wrap(),
        arguments(tmp_path, **settings, auto_find_batch_size=True, per_device_train_batch_size=8),
        train_dataset=rows(32),
        callbacks=[TooLarge()],
    )
    found.train()
    given = arguments(tmp_path, **settings, per_device_train_batch_size=found._train_batch_size)
    given = AdvBNTrainer(wrap(), given, train_dataset=rows(32))
    given.train()
    for name in ("loss", "clean_loss", "adversarial_loss", "clean_accuracy"):
        assert logged(found, name) == pytest.approx(logged(given, name), rel=1e-5)


def test_operations_are_estimated_as_trainer_does_for_the_backbone(tmp_path):
    trainer = AdvBNTrainer(wrap(), arguments(tmp_path), train_dataset=rows(16))
    trainer.train()
    batch = {"pixel_values": torch.zeros(4, 3, 32, 32)}
    per_step = 6 * batch["pixel_values"].numel() * trainer.model.backbone.num_parameters(exclude_embeddings=True)
    assert trainer.state.total_flos == 4 * per_step > 0


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_loop_of_ones_own_is_seeded_and_resumed(share, tmp_path):
    accelerator, (images, labels) = Accelerator(cpu=True), images_and_labels(8)
    model = wrap(adversarial_share=share).train()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.05))

    def step():
        optimizer.zero_grad()
        loss = model(images, labels).loss
        accelerator.backward(loss)
        optimizer.step()
        return loss.item()

    step()
    accelerator.save_state(str(tmp_path))
    after = [step(), step()]
    accelerator.load_state(str(tmp_path))
    assert [step(), step()] == after
    losses = []
    for _ in range(2):
        accelerator.load_state(str(tmp_path))
        set_seed(3)
        losses.append(step())
    assert losses[0] == losses[1]
    assert losses[0] != after[0]


def test_soft_labels_are_probabilities(tmp_path):
    """As MixUp and CutMix make them; one-hot ones are the labels."""
    images, labels = images_and_labels(4)
    model = wrap().train()
    hard, soft = labels, torch.nn.functional.one_hot(labels, 5).float()
    losses = []
    for given in (hard, soft):
        model.manual_seed(5)
        losses.append(model(images, given).loss)
    torch.testing.assert_close(*losses)

    def collate(batch):
        pixel_values = torch.stack([row["pixel_values"] for row in batch])
        one_hot = torch.eye(5)[[row["labels"] for row in batch]]
        return {"pixel_values": pixel_values, "labels": 0.7 * one_hot + 0.3 * one_hot.flip(0)}

    trainer = AdvBNTrainer(
        wrap(), arguments(tmp_path), train_dataset=rows(16), eval_dataset=rows(6), data_collator=collate
    )
    trainer.train()
    assert all(0 <= value <= 1 for value in logged(trainer, "clean_accuracy"))
    assert 0 <= trainer.evaluate()["eval_clean_accuracy"] <= 1


@pytest.mark.parametrize("name", ["branch", "smoothing", "recording", "measure_ascent", "loss_function"])
def test_a_column_called_as_an_argument_of_forward_is_refused(name, tmp_path):
    named = [row | {name: 0.5} for row in rows(16)]
    with pytest.raises(InputError, match=name):
        AdvBNTrainer(wrap(), arguments(tmp_path), train_dataset=named).train()
    with pytest.raises(InputError, match=name):
        AdvBNTrainer(wrap(), arguments(tmp_path)).predict(named)


def test_resuming_says_what_to_do_in_python(tmp_path):
    trainer = AdvBNTrainer(wrap(), arguments(tmp_path, save_strategy="steps", save_steps=2), train_dataset=rows(16))
    trainer.train()

    def resumed(place, **settings):
        again = AdvBNTrainer(wrap(), arguments(tmp_path, max_steps=6, **settings), train_dataset=rows(16))
        return again.train(resume_from_checkpoint=place)

    assert resumed("last").global_step == resumed(True).global_step == 6
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        resumed(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"checkpoint-4"):
        resumed(str(tmp_path))
    with pytest.raises(InputError, match=r"optim"):
        resumed(True, optim="sgd")
