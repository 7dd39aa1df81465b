"""Two-branch norms: which modules become one, that branches are apart, and that a plain model comes back."""

import pytest
import torch
from torch import nn

from advbn_hf.backbones.norms import TwoBranchNorm, is_norm, plain_model, split_norms, two_branch_norms, using_branch


class BatchNormAct(nn.BatchNorm2d):
    """A norm that also activates, as timm has."""

    def forward(self, x):
        return torch.relu(super().forward(x))


class OwnRMSNorm(nn.Module):
    """A norm that a model brings along."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x * self.weight


class NormalisedBlock(nn.Module):
    """Called like a norm, but a layer of its own with a norm inside."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.RMSNorm(4),
        BatchNormAct(4),
        OwnRMSNorm(4),
    ],
)
def test_norms_are_found(norm):
    assert is_norm(norm)


@pytest.mark.parametrize("module", [nn.Linear(4, 4), nn.Conv2d(4, 4, 1), NormalisedBlock(), nn.ReLU(), nn.Identity()])
def test_other_modules_are_not(module):
    assert not is_norm(module)


def test_branches_keep_their_own_statistics():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    split_norms(model)
    before = model[1].clean.running_mean.clone()
    with using_branch("auxiliary"):
        model(torch.randn(8, 3, 5, 5) + 3)
    assert torch.equal(model[1].clean.running_mean, before)
    assert not torch.equal(model[1].auxiliary.running_mean, before)
    assert model[1].branch == "clean"


def test_a_norm_that_activates_keeps_activating():
    model = nn.Sequential(BatchNormAct(4))
    split_norms(model)
    for branch in ("clean", "auxiliary"):
        with using_branch(branch):
            assert model(torch.randn(8, 4, 5, 5)).min() == 0


def test_attributes_of_the_norm_stay_reachable():
    norm = TwoBranchNorm(nn.GroupNorm(2, 4, eps=1e-3))
    assert (norm.eps, norm.num_groups) == (1e-3, 2)
    assert norm.weight is norm.clean.weight
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = norm.nothing_like_it


def test_skipped_modules_keep_their_norms():
    model = nn.ModuleDict({"stem": nn.Sequential(nn.BatchNorm2d(4)), "tail": nn.Sequential(nn.BatchNorm2d(4))})
    split_norms(model, skip=[model["stem"]])
    assert list(two_branch_norms(model)) == ["tail.0"]


def test_a_plain_model_shares_everything_and_leaves_the_model_alone():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.Linear(4, 4))
    keys = list(model.state_dict())
    split_norms(model)
    doubled = list(model.state_dict())
    nn.init.constant_(model[0][1].auxiliary.bias, 3)
    for branch in ("clean", "auxiliary"):
        plain = plain_model(model, branch)
        assert list(plain.state_dict()) == keys
        assert plain[0][0] is model[0][0] and plain[1] is model[1]
        assert plain[0][1] is getattr(model[0][1], branch)
        features = torch.randn(2, 4)
        with using_branch(branch):
            assert torch.equal(plain(features), model(features))
    assert list(model.state_dict()) == doubled


def test_branch_is_restored_after_an_error():
    model = nn.Sequential(nn.LayerNorm(4))
    split_norms(model)
    with pytest.raises(RuntimeError, match="size"), using_branch("auxiliary"):
        model(torch.randn(2, 5))
    assert model[0].branch == "clean"


def test_a_norm_that_stands_in_two_places_stays_one():
    norm = nn.LayerNorm(4)
    model = nn.Sequential(norm, nn.Linear(4, 4), norm)
    keys = list(model.state_dict())
    split_norms(model)
    assert model[0] is model[2]
    nn.init.constant_(model[0].auxiliary.bias, 3)
    with using_branch("auxiliary"):
        assert model(torch.randn(2, 4)).mean().item() == pytest.approx(3)
    assert model[2].branch == "clean"
    plain = plain_model(model, "auxiliary")
    assert list(plain.state_dict()) == keys
    assert plain[0] is plain[2]
    assert isinstance(model[2], TwoBranchNorm)
