"""Training with a share of each batch adversarial: each branch learns from its own images, exactly and resumably."""

import pytest
import torch
import torch.nn.functional as F
from builders import models_equal, rows, tiny_convnext, tiny_resnet, tiny_vit
from trainers import trainer_of

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, InputError
from advbn_hf.modeling import PlainForImageClassification
from advbn_hf.training.stem_cache import cached_stem_features

HALF, ALL = AdvBNConfig(), AdvBNConfig(adversarial_share=1.0)


def batch_of(data):
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in data]),
        "labels": torch.tensor([row["labels"] for row in data]),
    }


def test_each_branch_sees_its_own_images_and_the_loss_is_the_sum_of_their_means():
    model = AdvBNForImageClassification.from_backbone(tiny_convnext(), HALF).train()
    batch = batch_of(rows(8))
    output = model(**batch, smoothing=0.1)
    assert sorted([*output.clean_rows.tolist(), *output.adversarial_rows.tolist()]) == list(range(8))
    clean = model.export("clean")(batch["pixel_values"][output.clean_rows]).logits
    assert torch.allclose(output.logits, clean, atol=1e-5)
    of_branches = [
        F.cross_entropy(logits, batch["labels"][index], label_smoothing=0.1)
        for logits, index in ((output.logits, output.clean_rows), (output.auxiliary_logits, output.adversarial_rows))
    ]
    assert torch.allclose(output.loss, sum(of_branches))


def test_adversarial_images_are_perturbed_as_they_would_be_alone():
    model = AdvBNForImageClassification.from_backbone(tiny_convnext(), HALF).train()
    batch = batch_of(rows(8))
    model.manual_seed(1)
    output = model(**batch)
    whole = AdvBNForImageClassification.from_backbone(tiny_convnext(), ALL).train()
    whole.manual_seed(1)
    alone = whole(**{name: tensor[output.adversarial_rows] for name, tensor in batch.items()})
    assert torch.allclose(output.auxiliary_logits, alone.auxiliary_logits, atol=1e-5)


def test_running_statistics_are_of_the_images_of_each_branch():
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(), HALF).train()
    batch = batch_of(rows(8))
    output = model(**batch)
    reference = AdvBNForImageClassification.from_backbone(tiny_resnet(), ALL).train()
    reference(**{name: tensor[output.clean_rows] for name, tensor in batch.items()})
    statistics = [name for name, _ in model.named_buffers() if ".clean.running" in name]
    assert statistics
    for name in statistics:
        assert torch.allclose(model.get_buffer(name), reference.get_buffer(name), atol=1e-5), name


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("make", [tiny_convnext, tiny_vit])
def test_accumulating_small_batches_equals_one_large_batch(make, share, tmp_path):
    config = AdvBNConfig(adversarial_share=share)
    settings = {"max_steps": 2, "lr_scheduler_type": "constant", "max_grad_norm": 0, "optim_args": None}
    models = []
    for name, size in (("large", 32), ("small", 8)):
        trainer = trainer_of(
            tmp_path / name,
            model=make(),
            config=config,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=32 // size,
            **settings,
        )
        trainer.train()
        models.append(trainer.model.state_dict())
    start = make().state_dict()
    for name, value in models[0].items():
        path = name.removeprefix("backbone.").replace(".clean.", ".").replace(".auxiliary.", ".")
        assert (models[1][name] - value).norm() <= 1e-3 * (value - start[path]).norm() + 1e-6, name


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    settings = {"config": HALF, "save_strategy": "steps", "save_steps": 2}
    through = trainer_of(tmp_path / "through", **settings)
    through.train()
    resumed = trainer_of(tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "through" / "checkpoint-2"))
    assert models_equal(through.model, resumed.model)


def test_stored_stem_features_and_checkpointed_activations_change_nothing(tmp_path):
    plain = trainer_of(tmp_path / "plain", model=tiny_vit(), config=HALF)
    plain.train()
    checkpointed = trainer_of(tmp_path / "checkpointed", model=tiny_vit(), config=HALF, gradient_checkpointing=True)
    checkpointed.train()
    torch.manual_seed(0)
    model = AdvBNForImageClassification.from_backbone(tiny_vit(), HALF)
    with cached_stem_features(model, plain.train_dataset, tmp_path / "features", batch_size=8) as features:
        stored = trainer_of(tmp_path / "stored", model=tiny_vit(), config=HALF)
        stored.train_dataset = features
        stored.train()
    for other in (checkpointed, stored):
        for name, value in plain.model.state_dict().items():
            assert torch.allclose(other.model.state_dict()[name], value, atol=1e-6), name


def test_logged_accuracies_are_of_each_branch_s_own_images(tmp_path):
    trainer = trainer_of(tmp_path, config=HALF, max_steps=1)
    seen = []
    trainer.model.register_forward_hook(
        lambda _, args, kwargs, output: seen.append((kwargs["labels"], output)), with_kwargs=True
    )
    trainer.train()
    (labels, output), log = seen[0], trainer.state.log_history[0]
    for name, logits, index in (
        ("clean_accuracy", output.logits, output.clean_rows),
        ("auxiliary_accuracy", output.auxiliary_logits, output.adversarial_rows),
    ):
        assert log[name] == pytest.approx((logits.argmax(-1) == labels[index]).double().mean().item(), abs=1e-6)


def test_a_last_batch_too_short_to_be_shared_goes_through_both_branches(tmp_path):
    trainer = trainer_of(tmp_path, config=HALF, data=rows(23), max_steps=3)  # batches of 8, 8 and 7
    trainer.train()
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(), HALF).train()
    output = model(**batch_of(rows(3)))
    assert output.clean_rows is None
    assert len(output.logits) == len(output.auxiliary_logits) == 3


def test_a_batch_too_small_for_both_branches_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"per_device_train_batch_size.*8 or more"):
        trainer_of(tmp_path, config=AdvBNConfig(adversarial_share=0.25), per_device_train_batch_size=4)


def test_a_batch_of_two_serves_a_network_without_batch_norm_and_one_does_not(tmp_path):
    trainer_of(tmp_path, model=tiny_convnext(), config=HALF, per_device_train_batch_size=2).train()
    with pytest.raises(InputError, match=r"per_device_train_batch_size.*no image.*2 or more"):
        trainer_of(tmp_path, model=tiny_convnext(), config=HALF, per_device_train_batch_size=1)


def test_plain_training_takes_any_batch(tmp_path):
    args = trainer_of(tmp_path, config=ALL, per_device_train_batch_size=2).args
    plain = PlainForImageClassification.from_backbone(tiny_resnet(), HALF)
    assert AdvBNTrainer(plain, args, train_dataset=rows(8)).train().global_step == 4
