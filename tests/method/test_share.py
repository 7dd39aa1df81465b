"""Which images are adversarial where not all are: as many as asked for, others at each draw, whoever draws."""

from fractions import Fraction

import pytest
import torch

from advbn_hf import AdvBNConfig, InputError
from advbn_hf.method import share
from advbn_hf.method.share import split_rows


def draw(batch_size, of, seed=0):
    return split_rows(batch_size, of, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("of", [Fraction(1, 2), Fraction(1, 4), Fraction(2, 3), Fraction(15, 16)], ids=str)
def test_every_image_is_in_one_branch_and_each_block_has_its_share(of):
    clean, adversarial = draw(48, of)
    assert sorted([*clean.tolist(), *adversarial.tolist()]) == list(range(48))
    counts = torch.bincount(adversarial // of.denominator, minlength=48 // of.denominator)
    assert set(counts.tolist()) == {of.numerator}


def test_every_choice_of_a_block_is_as_likely():
    _, adversarial = draw(40_000, Fraction(2, 4 + 1))
    places = torch.bincount(adversarial % 5, minlength=5)
    assert (places.double() / 8_000 - 0.4).abs().max() < 0.03
    pairs = adversarial.view(-1, 2) % 5
    assert len(torch.unique(pairs, dim=0)) == 10  # all of (5 over 2)


def test_two_small_batches_draw_what_a_large_one_does():
    generator = torch.Generator().manual_seed(3)
    first, second = (split_rows(8, Fraction(1, 4), generator)[1] for _ in range(2))
    assert torch.equal(torch.cat([first, second + 8]), draw(16, Fraction(1, 4), seed=3)[1])
    assert not torch.equal(first, second)


def test_processes_take_their_part_of_one_draw(monkeypatch):
    _, joint = draw(16, Fraction(1, 2))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(share, "world", lambda rank=rank: (rank, 2))
        parts.append(draw(8, Fraction(1, 2))[1] + 8 * rank)
    assert torch.equal(torch.cat(parts), joint)


@pytest.mark.parametrize(
    ("asked", "fraction", "smallest"),
    [
        (0.5, "1/2", 4),
        (0.25, "1/4", 8),
        (0.3333, "1/3", 6),
        (0.75, "3/4", 8),
        (0.01, "1/16", 32),
        (0.999, "15/16", 32),
    ],
)
def test_a_share_is_the_nearest_simple_fraction(asked, fraction, smallest):
    config = AdvBNConfig(adversarial_share=asked)
    assert config.adversarial_fraction == Fraction(fraction)
    assert config.smallest_batch(2) == smallest


@pytest.mark.parametrize("value", [0, -0.5, 1.5, float("nan"), True, "half"])
def test_other_values_are_refused(value):
    with pytest.raises(InputError, match="adversarial_share"):
        AdvBNConfig(adversarial_share=value)
