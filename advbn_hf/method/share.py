"""Which images of a batch go through the adversarial branch, where not all of them do."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from .attack import world


def split_rows(batch_size: int, share: Fraction, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws the rows of a batch that are adversarial, by a permutation of each block of consecutive rows.

    Of every b rows a are adversarial, in a random choice of their own. So each process
    and each micro-batch has its share, and drawing for B rows and then for B' more gives what drawing for B + B'
    gives: it depends neither on accumulation nor on the number of processes. That a batch need not go through both
    branches is from Fast AdvProp (Mei et al., ICLR 2022).

    Args:
        batch_size: B, of this process.
        share: a / b, in (0, 1).
        generator: source of the permutations, on the CPU, in the same state on every process.

    Returns:
        The clean and the adversarial rows, int64 on the CPU, in ascending order.

    Example:
        >>> clean, adversarial = split_rows(4, Fraction(1, 2), torch.Generator().manual_seed(0))
        >>> len(clean), len(adversarial)
        (2, 2)
    """
    rank, processes = world()
    blocks = -(-processes * batch_size // share.denominator)
    places = torch.rand(blocks, share.denominator, generator=generator).argsort(dim=1).argsort(dim=1)
    chosen = (places < share.numerator).flatten()[rank * batch_size : (rank + 1) * batch_size].numpy()
    return torch.from_numpy(np.flatnonzero(~chosen)), torch.from_numpy(np.flatnonzero(chosen))
