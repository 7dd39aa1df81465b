"""The perturbation against direct computation, its box, and what it leaves alone."""

import pytest
import torch

from advbn_hf.method.perturbation import (
    MEAN,
    STD,
    ascend,
    assign_groups,
    group_means,
    initial_multipliers,
    leading_share,
    perturb,
)


def features_of(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 12, 5)], ids=["images", "tokens"])
@pytest.mark.parametrize("num_groups", [1, 2, 4, 6])
@pytest.mark.parametrize("rectify", [True, False])
def test_equals_the_formula_group_by_group(shape, num_groups, rectify):
    features = features_of(shape)
    groups = assign_groups(6, num_groups)
    multipliers = initial_multipliers(num_groups, 5, 1.1, torch.Generator().manual_seed(1))
    axis = 1 if len(shape) == 4 else -1
    means = group_means(features, groups, num_groups, axis)
    result = perturb(features, means, multipliers, groups, rectify, axis)
    for group in range(num_groups):
        channels_last = features[groups == group] if len(shape) == 3 else features[groups == group].movedim(1, -1)
        mean = channels_last.flatten(0, -2).mean(0)
        expected = (channels_last - mean) * multipliers[STD, group] + mean * multipliers[MEAN, group]
        expected = expected.clamp(min=0) if rectify else expected
        got = result[groups == group] if len(shape) == 3 else result[groups == group].movedim(1, -1)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_channels_may_be_the_last_of_four_axes():
    features, groups = features_of((4, 6, 7, 5)), assign_groups(4, 2)
    multipliers = initial_multipliers(2, 5, 1.1, torch.Generator().manual_seed(1))
    channels_first = features.movedim(-1, 1)
    means = group_means(features, groups, 2, -1)
    torch.testing.assert_close(means, group_means(channels_first, groups, 2, 1))
    result = perturb(features, means, multipliers, groups, True, -1)
    torch.testing.assert_close(result.movedim(-1, 1), perturb(channels_first, means, multipliers, groups, True, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_multipliers_of_one_are_the_identity_bit_for_bit(dtype):
    features = features_of((4, 3, 5, 5), dtype=dtype)
    groups = assign_groups(4, 2)
    result = perturb(features, group_means(features, groups, 2, 1), initial_multipliers(2, 3, 1.1), groups, False, 1)
    assert result.dtype == dtype
    assert torch.equal(result, features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_are_float32_in_half_precision(dtype):
    features = (100 + features_of((2, 3, 64, 64))).to(dtype)
    means = group_means(features, assign_groups(2, 1), 1, 1)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means[0], features.double().mean((0, 2, 3)).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch", "num_groups"), [(8, 4), (7, 4), (5, 5), (3, 1), (64, 6)])
def test_groups_are_contiguous_and_even(batch, num_groups):
    groups = assign_groups(batch, num_groups)
    sizes = torch.bincount(groups)
    assert torch.equal(groups, groups.sort().values)
    assert len(sizes) == num_groups
    assert sizes.max() - sizes.min() <= 1


def test_leading_share_takes_from_every_group():
    groups = assign_groups(10, 3)  # sizes 4, 3, 3
    assert leading_share(groups, 3, 0.5).tolist() == [0, 1, 4, 5, 7, 8]
    assert leading_share(groups, 3, 0.01).tolist() == [0, 4, 7]
    assert leading_share(groups, 3, 1.0).tolist() == list(range(10))


def test_random_start_fills_the_box_and_continues():
    whole = initial_multipliers(6, 500, 0.7, torch.Generator().manual_seed(3))
    assert 0.3 <= whole.min() < 0.32
    assert 1.68 < whole.max() <= 1.7
    generator = torch.Generator().manual_seed(3)
    parts = [initial_multipliers(groups, 500, 0.7, generator) for groups in (2, 3, 1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_ascent_climbs_to_the_corner_of_its_box_and_stays():
    slope = torch.tensor([[[1.0, -2.0]], [[3.0, 0.0]]])
    result = ascend(lambda m: (m * slope).sum(), torch.ones(2, 1, 2), epsilon=0.5, step_size=0.2, num_steps=2)
    torch.testing.assert_close(result, 1 + 0.4 * slope.sign())
    result = ascend(lambda m: (m * slope).sum(), torch.ones(2, 1, 2), epsilon=0.5, step_size=0.2, num_steps=9)
    torch.testing.assert_close(result, 1 + 0.5 * slope.sign())
    assert not result.requires_grad


def test_ascent_gives_gradients_to_nothing_else_and_works_without_grad_mode():
    weight = torch.nn.Parameter(torch.randn(3))
    with torch.no_grad():
        ascend(lambda m: (m * weight).sum(), torch.ones(2, 1, 3), epsilon=1.0, step_size=0.1, num_steps=3)
    assert weight.grad is None


def test_no_steps_return_the_start():
    start = torch.full((2, 1, 3), 1.3)
    assert torch.equal(ascend(lambda m: m.sum(), start, epsilon=0.1, step_size=1.0, num_steps=0), start)


@pytest.mark.parametrize("others", [(0,), (0, 1, -1)])
@pytest.mark.parametrize("num_groups", [1, 2, 6])
def test_other_tokens_count_in_no_statistic_and_keep_their_values(others, num_groups):
    tokens, groups = features_of((6, 12, 5)), assign_groups(6, num_groups)
    multipliers = initial_multipliers(num_groups, 5, 1.1, torch.Generator().manual_seed(1))
    means = group_means(tokens, groups, num_groups, -1, others)
    result = perturb(tokens, means, multipliers, groups, False, -1, others)
    patches = slice(1, None) if others == (0,) else slice(2, -1)
    alone = perturb(
        tokens[:, patches],
        tokens[:, patches].unflatten(0, (num_groups, -1)).mean(dim=(1, 2)),
        multipliers,
        groups,
        False,
        -1,
    )
    torch.testing.assert_close(result[:, patches], alone, rtol=1e-5, atol=1e-5)
    for position in others:
        assert torch.equal(result[:, position], tokens[:, position])
    first = tokens.mT  # channels before tokens
    torch.testing.assert_close(group_means(first, groups, num_groups, 1, others), means)
    torch.testing.assert_close(perturb(first, means, multipliers, groups, False, 1, others).mT, result)
