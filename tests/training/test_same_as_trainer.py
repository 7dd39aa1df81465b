"""Training goes as in plain Trainer: rows and callbacks in its order, its schedules and optimisers, one trajectory.

The last is also that of AdvBN itself: however a batch is divided, whatever is logged, evaluated, saved or recomputed.
"""

import pytest
import torch
from builders import models_equal, rows, tiny_convnext, tiny_resnet, tiny_vit
from parity import arguments, history, logged, plain_and_ours, train, wrap
from transformers import SchedulerType, SwinConfig, SwinForImageClassification, Trainer, TrainerCallback

from advbn_hf import AdvBNTrainer

pytestmark = pytest.mark.slow


class Events(TrainerCallback):
    """Every event with the step at which it came."""

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda args, state, control, **kwargs: self.seen.append((name, state.global_step))


class ReadRows(list):
    """Rows, and in which order they were read."""

    def __init__(self, count):
        super().__init__(rows(count))
        self.order = []

    def __getitem__(self, index):
        self.order.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_train_epochs": 2, "max_steps": -1, "seed": 3, "eval_strategy": "epoch", "save_strategy": "epoch"},
        {"data_seed": 5, "eval_on_start": True, "logging_first_step": True, "logging_steps": 2},
        {"train_sampling_strategy": "sequential", "eval_strategy": "steps", "eval_steps": 2},
        {"gradient_accumulation_steps": 2, "max_steps": 3, "save_strategy": "steps", "save_steps": 2},
        {"dataloader_drop_last": True,
            "per_device_eval_batch_size": 3, "max_steps": 6, "load_best_model_at_end": True, "eval_strategy": "steps",
         "eval_steps": 2, "save_strategy": "best"},
    ],
    ids=lambda settings: ", ".join(settings),
)  # fmt: skip
def test_rows_and_callbacks_come_in_the_same_order(settings, tmp_path):
    trainers = plain_and_ours(
        tmp_path, given=lambda model: {"train_dataset": ReadRows(10), "callbacks": [Events()]}, **settings
    )
    train(*trainers)
    plain, ours = (
        [one for one in trainer.callback_handler.callbacks if isinstance(one, Events)] for trainer in trainers
    )
    assert ours[0].seen == plain[0].seen
    assert len(plain[0].seen) > 20
    assert trainers[1].train_dataset.order == trainers[0].train_dataset.order


def tiny_swin():
    torch.manual_seed(0)
    config = SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    config.num_labels = 5
    return SwinForImageClassification(config)


@pytest.mark.parametrize("make", [tiny_vit, tiny_convnext, tiny_swin])
def test_a_batch_may_be_accumulated_from_any_parts(make, tmp_path):
    logs = []
    for batch, accumulation in ((8, 1), (4, 2), (2, 4)):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 2}
        trainer = AdvBNTrainer(wrap(make()), arguments(tmp_path, **sizes), train_dataset=rows(16))
        train(trainer)
        logs.append(logged(trainer, "loss") + logged(trainer, "grad_norm") + logged(trainer, "clean_loss"))
    for of_parts in logs[1:]:
        assert of_parts == pytest.approx(logs[0], rel=5e-3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("undisturbed"))


def trained(folder, attention="sdpa", **settings):
    backbone = tiny_vit()
    backbone.set_attn_implementation(attention)
    settings = arguments(folder, learning_rate=0.01, **{"max_steps": 3, **settings})
    trainer = AdvBNTrainer(wrap(backbone), settings, train_dataset=rows(16), eval_dataset=rows(5))
    train(trainer)
    return trainer


@pytest.mark.parametrize(
    ("settings", "exactly"),
    [
        ({"logging_steps": 2}, True),
        ({"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}, True),
        ({"dataloader_num_workers": 1}, True),
        ({"gradient_checkpointing": True}, False),
        ({"attention": "eager"}, False),
    ],
    ids=str,
)
def test_one_trajectory(settings, exactly, tmp_path, undisturbed):
    model = trained(tmp_path, **settings).model
    if exactly:
        assert models_equal(model, undisturbed.model)
    else:
        expected = undisturbed.model.state_dict()
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


RATES = {
    "polynomial": {"power": 2.0},
    "cosine_with_restarts": {"num_cycles": 2},
    "cosine_with_min_lr": {"min_lr": 1e-6},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-6},
    "warmup_stable_decay": {"num_decay_steps": 3},
}


@pytest.mark.parametrize("name", [one.value for one in SchedulerType])
def test_every_schedule_has_trainers_rates(name, tmp_path):
    settings = {"lr_scheduler_type": name, "lr_scheduler_kwargs": RATES.get(name), "warmup_steps": 2}
    if name in ("reduce_lr_on_plateau", "greedy"):  # they follow what is measured
        settings = {"lr_scheduler_type": name, "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.1}
        plain, ours = plain_and_ours(tmp_path, **settings)
        train(plain, ours)
        assert logged(ours, "learning_rate") == pytest.approx(logged(plain, "learning_rate"))
        return
    rates = []
    for trainer in plain_and_ours(tmp_path, **settings):
        trainer.create_optimizer_and_scheduler(8)
        rates.append([])
        for _ in range(8):
            rates[-1].append(trainer.lr_scheduler.get_last_lr())
            trainer.optimizer.step()
            trainer.lr_scheduler.step()
    assert rates[0] == rates[1]
    assert name == "constant" or len(set(map(tuple, rates[0]))) > 1


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor"])
def test_every_optimiser_makes_trainers_steps(name, tmp_path):
    plain, ours = plain_and_ours(tmp_path, optim=name, learning_rate=0.01, weight_decay=0.1, max_steps=3)
    train(plain, ours)
    for one, other in zip(history(ours), history(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("make", [tiny_resnet, tiny_convnext, tiny_vit, tiny_swin])
def test_weight_decay_acts_on_the_same_weights_in_both_branches(make, tmp_path):
    plain = Trainer(make()).get_decay_parameter_names(make())
    model = wrap(make(), freeze_stem=False)
    ours = AdvBNTrainer(model, arguments(tmp_path)).get_decay_parameter_names(model)
    for name, _ in model.named_parameters():
        of_plain = name.removeprefix("backbone.").replace(".clean.", ".").replace(".auxiliary.", ".")
        assert (name in ours) == (of_plain in plain), name
