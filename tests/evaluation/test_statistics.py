"""The paired test, against published and directly computed values."""

import math

import numpy as np
import pytest

from advbn_hf import InputError
from advbn_hf.evaluation.statistics import mcnemar


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Images in that many kinds."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_example_of_the_literature():
    """Counts 1, 1, 7 and 12: Bentur et al. in Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014)."""
    test = mcnemar(*outcomes(1, 1, 7, 12))
    assert test.n == 21 and test.difference == pytest.approx(-6 / 21)
    assert test.p_value == pytest.approx(0.0703, abs=5e-5)
    # Bonett and Price by hand: shares 2/23 and 8/23.
    half = 1.959963985 * math.sqrt((10 / 23 - (6 / 23) ** 2) / 23)
    assert test.interval == pytest.approx((-6 / 23 - half, -6 / 23 + half), abs=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (5, 5), (0, 6), (30, 12)])
def test_p_value_is_the_binomial_tail(only_a, only_b):
    n, k = only_a + only_b, max(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n
    assert mcnemar(*outcomes(40, only_a, only_b, 10)).p_value == pytest.approx(min(1.0, 2 * tail))


def test_exchanging_the_models_changes_the_sign():
    a, b = outcomes(50, 12, 3, 8)
    one, other = mcnemar(a, b), mcnemar(b, a)
    assert one.difference == -other.difference > 0
    assert one.interval == pytest.approx(tuple(-end for end in reversed(other.interval)))
    assert one.p_value == other.p_value


def test_equal_models_show_no_difference():
    a, _ = outcomes(7, 3, 0, 0)
    test = mcnemar(a, a)
    assert test.difference == 0 and test.p_value == 1 and test.interval[0] < 0 < test.interval[1]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """400 pairs of models whose true difference is 10 points."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        draw = rng.random(200)
        a, b = draw < 0.75, (draw > 0.25) & (draw < 0.90)
        low, high = mcnemar(a, b).interval
        covered += low <= 0.10 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_interval_stays_within_what_a_difference_can_be():
    assert mcnemar([True], [False]).interval[1] == 1.0


def test_numbers_and_arrays_are_taken():
    assert mcnemar(np.array([1, 0, 1]), [True, True, False]) == mcnemar([True, False, True], [1, 1, 0])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([True], [True, False], "one length"),
        ([], [], "one length"),
        ([0.5, 1], [1, 1], "correct_a: must be a list of true and false"),
        ([True], [[True]], "correct_b: must be a list"),
    ],
)
def test_bad_input(a, b, message):
    with pytest.raises(InputError, match=message):
        mcnemar(a, b)
