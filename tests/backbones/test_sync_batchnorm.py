"""Conversion to synchronised batch norms: both branches, the same numbers on one process. More takes GPUs."""

import pytest
import torch
from builders import images_and_labels, move_auxiliary_norms, rows, tiny_resnet
from tiny_models import TinyClassifier
from torch import nn

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError
from advbn_hf.backbones.norms import two_branch_norms


class NormAndActivation(nn.BatchNorm2d):
    def forward(self, features):
        return super().forward(features).relu()


class ActivatesInItsNorm(TinyClassifier):
    def __init__(self):
        super().__init__()
        self.norm = NormAndActivation(4)

    def forward(self, pixel_values):
        return self.classify(self.norm(self.conv(pixel_values)))


class NormEndsTheStem(TinyClassifier):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Conv2d(4, 4, 1)

    def forward(self, pixel_values):
        return self.classify(self.block(self.norm(self.conv(pixel_values))))


def test_both_branches_are_converted_and_compute_the_same():
    model, converted = (AdvBNForImageClassification.from_backbone(tiny_resnet()) for _ in range(2))
    for one in (model, converted):
        move_auxiliary_norms(one)
        one.generator.manual_seed(0)
    weights = dict(converted.named_parameters())
    converted.synchronize_batch_norms()
    assert not [module for module in converted.modules() if type(module) is nn.BatchNorm2d]
    for norm in two_branch_norms(converted).values():
        assert isinstance(norm.clean, nn.SyncBatchNorm)
        assert isinstance(norm.auxiliary, nn.SyncBatchNorm)
    assert all(weight is weights[name] for name, weight in converted.named_parameters())  # an optimiser keeps its hold
    assert model.state_dict().keys() == converted.state_dict().keys()

    pixel_values, labels = images_and_labels()
    losses = [one.train()(pixel_values=pixel_values, labels=labels).loss for one in (model, converted)]
    torch.testing.assert_close(*losses)
    frozen = [module for stem in converted.split.stem_modules for module in stem.modules()]
    assert not any(module.training for module in frozen)
    torch.testing.assert_close(model.state_dict(), converted.state_dict())


@torch.no_grad()
def test_a_stem_that_ends_with_a_norm_is_still_cut_there():
    model = AdvBNForImageClassification.from_backbone(NormEndsTheStem().eval(), AdvBNConfig(insert_after="norm"))
    pixel_values, _ = images_and_labels(size=16)
    expected = model.eval()(pixel_values, branch="both").logits
    model.synchronize_batch_norms()
    assert isinstance(model.split.stem_modules[-1], nn.SyncBatchNorm)
    torch.testing.assert_close(model(pixel_values, branch="both").logits, expected)


def test_the_trainer_converts_when_asked(tmp_path):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    args = AdvBNTrainingArguments(
        str(tmp_path), sync_batchnorm=True, max_steps=1, save_strategy="no", report_to="none", use_cpu=True
    )
    AdvBNTrainer(model, args, train_dataset=rows(8)).train()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_a_norm_that_does_more_is_refused():
    model = AdvBNForImageClassification.from_backbone(ActivatesInItsNorm(), AdvBNConfig(insert_after="conv"))
    with pytest.raises(InputError, match=r"sync_batchnorm: .*NormAndActivation"):
        model.synchronize_batch_norms()


def test_several_processes_on_a_cpu_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(AdvBNTrainingArguments, "world_size", 2)
    with pytest.raises(InputError, match=r"sync_batchnorm: .*GPU"):
        AdvBNTrainingArguments(str(tmp_path), sync_batchnorm=True, use_cpu=True)
