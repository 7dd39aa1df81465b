"""Chains of random operations, mixed with the image itself: what AugMix and PRIME have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

WIDTH, DEPTH = 3, 3  # chains, and the most operations in one
_ALPHA = 1.0  # of the Dirichlet and Beta distributions

Operation = Callable[[Any, np.random.Generator], Any]


def mixed_chains(image: Any, operations: Sequence[Operation], rng: np.random.Generator) -> np.ndarray:
    """(1 - m) x + m sum_i w_i chain_i(x), algorithm 1 of AugMix (Hendrycks et al., ICLR 2020).

    m is uniform in 0..1, w from Dirichlet(1, 1, 1); each of the three chains has one to three operations, drawn with
    replacement.

    Args:
        image: (H, W, 3), in any form that `np.asarray` takes.
        operations: each takes an image, in the form of `image`, and a generator that draws its strength.
        rng: draws operations, their strengths and the weights of the mixture.

    Returns:
        float32 (H, W, 3), in the units of `image`.

    Example:
        >>> half = lambda image, rng: image / 2
        >>> mixed = mixed_chains(np.ones((4, 4, 3)), [half], np.random.default_rng(0))
        >>> bool((mixed < 1).all() and (mixed > 1 / 8).all())
        True
    """
    weights, share = rng.dirichlet([_ALPHA] * WIDTH), rng.beta(_ALPHA, _ALPHA)
    mixture = (1 - share) * np.asarray(image, dtype=np.float32)
    for weight in weights:
        augmented = image
        for operation in rng.choice(len(operations), rng.integers(1, DEPTH, endpoint=True)):
            augmented = operations[operation](augmented, rng)
        mixture += np.float32(share * weight) * np.asarray(augmented, dtype=np.float32)
    return mixture
