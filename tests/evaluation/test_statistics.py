"""Paired tests, against published and directly computed values."""

import math

import numpy as np
import pytest
from scipy.stats import t as t_distribution

from advbn_hf import InputError
from advbn_hf.evaluation.statistics import mcnemar, mean_gain_p_value


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Images in that many kinds."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_example_of_the_literature():
    """Counts 1, 1, 7 and 12: Bentur et al. in Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014)."""
    assert mcnemar(*outcomes(1, 1, 7, 12)) == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (5, 5), (0, 6), (30, 12)])
def test_p_value_is_the_binomial_tail(only_a, only_b):
    n, k = only_a + only_b, max(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n
    assert mcnemar(*outcomes(40, only_a, only_b, 10)) == pytest.approx(min(1.0, 2 * tail))


def test_the_order_of_the_models_does_not_matter():
    a, b = outcomes(50, 12, 3, 8)
    assert mcnemar(a, b) == mcnemar(b, a) < 0.05


def test_equal_models_show_no_difference():
    a, _ = outcomes(7, 3, 0, 0)
    assert mcnemar(a, a) == 1


def test_equally_good_models_are_told_apart_no_more_often_than_the_level():
    """400 pairs of models that are right on 75 % of 200 images each, independently."""
    rng = np.random.default_rng(0)
    p_values = [mcnemar(*(rng.random((2, 200)) < 0.75)) for _ in range(400)]
    assert sum(p_value < 0.05 for p_value in p_values) / 400 <= 0.05


def test_mean_gains_are_tested_over_images():
    gains = np.array([1, 0.5, 0, 0, -0.25, 0.5])
    t = gains.mean() / (gains.std(ddof=1) / math.sqrt(6))
    assert mean_gain_p_value(gains) == pytest.approx(2 * t_distribution.sf(t, df=5))
    assert mean_gain_p_value(np.zeros(4)) == 1 and mean_gain_p_value(np.full(4, 0.5)) == 0


def test_numbers_and_arrays_are_taken():
    assert mcnemar(np.array([1, 0, 1]), [True, True, False]) == mcnemar([True, False, True], [1, 1, 0])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([True], [True, False], "one length"),
        ([], [], "one length"),
        ([0.5, 1], [1, 1], "correct_a: "),
        ([True], [[True]], "correct_b: "),
    ],
)
def test_bad_input(a, b, message):
    with pytest.raises(InputError, match=message):
        mcnemar(a, b)
