"""Confidence sequences: valid at every look, and able to find a difference."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from reviewguard.evaluation.sequential import BURN_IN, difference, f1_influence, paired_difference, unpaired, unpaired_difference


def test_looking_every_day_at_equal_models_rarely_promotes_one() -> None:
    """A/A tests of 30 days with 100 texts each. At the daily looks, an ordinary interval would promote in a third of them."""
    rng = np.random.default_rng(0)
    wrong = ordinary = 0
    for _ in range(400):
        first, second = ((rng.random(3000) < 0.1).astype(float) for _ in range(2))
        values, found = second - first, paired_difference(first, second)
        wrong += any(low > 0 or high < 0 for _, _, low, high in found.path)
        days = np.arange(100, 3001, 100)
        means, deviations = np.cumsum(values)[days - 1] / days, np.array([values[:day].std() for day in days])
        ordinary += bool((np.abs(means) > 1.96 * deviations / np.sqrt(days)).any())
    assert wrong <= 0.05 * 400
    assert ordinary > 0.15 * 400, "the problem that the sequence solves"


def test_a_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        better, worse = rng.random(4000) < 0.95, rng.random(4000) < 0.90
        result = paired_difference(worse.astype(float), better.astype(float))
        assert result.low <= result.value <= result.high or result.is_significant
        found += result.low > 0
    assert found >= 48


def test_unpaired_values_estimate_the_difference_of_the_arms() -> None:
    rng = np.random.default_rng(0)
    share = np.full(200_000, 0.1)
    challenger = rng.random(200_000) < share
    outcomes = (rng.random(200_000) < np.where(challenger, 0.8, 0.7)).astype(float)
    values = unpaired(outcomes, challenger, share)
    assert values.mean() == pytest.approx(0.1, abs=0.01)
    plain = outcomes * np.where(challenger, 1 / share, -1 / (1 - share))
    assert values.std() < 0.7 * plain.std()
    found = unpaired_difference(outcomes, challenger, share)
    assert found.low <= 0.1 <= found.high
    assert found.is_significant


def test_f1_is_the_mean_of_its_influence_values() -> None:
    rng = np.random.default_rng(0)
    estimates, spreads = [], []
    for _ in range(300):
        truth = rng.random(500) < 0.3
        predicted = np.where(rng.random(500) < 0.85, truth, ~truth)
        values = f1_influence(truth, predicted)
        assert values.mean() == pytest.approx(f1_score(truth, predicted))
        estimates.append(values.mean())
        spreads.append(values.std() / np.sqrt(500))
    assert np.std(estimates) == pytest.approx(np.mean(spreads), rel=0.15), "their spread predicts that of F1"


@pytest.mark.parametrize(("accuracy", "share"), [(0.9, 0.1), (0.98, 0.1), (0.98, 0.02), (0.6, 0.5)])
def test_rare_errors_of_a_small_arm_promote_nobody(accuracy: float, share: float) -> None:
    """Without waiting for the rare values, 10 to 60 % of these A/A tests would promote a model."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        challenger, right = rng.random(30_000) < share, rng.random(30_000) < accuracy
        found = unpaired_difference(right.astype(float), challenger, np.full(30_000, share))
        wrong += found is not None and found.is_significant
    assert wrong <= 0.075 * 200, "5 %, and the error of 200 tests"


def test_a_split_that_changes_takes_nothing_back() -> None:
    rng = np.random.default_rng(0)
    shares = np.concatenate([np.full(19_000, 0.5), np.full(2000, 0.01)])
    challenger = rng.random(len(shares)) < shares
    right = (rng.random(len(shares)) < np.where(challenger, 0.6, 0.4)).astype(float)
    for count in (19_000, 21_000):
        found = unpaired_difference(right[:count], challenger[:count], shares[:count])
        assert found is not None and found.low > 0


def test_too_few_values_say_nothing() -> None:
    assert difference(np.zeros(1000), np.ones(1000)) is None
    assert difference(np.arange(BURN_IN - 1), np.ones(BURN_IN - 1)) is None
    rare = np.zeros(1000)
    rare[:9] = 1
    assert difference(rare, np.ones(1000)) is None
    rare[:12] = 1
    found = difference(rare, np.ones(1000))
    assert found is not None and found.path[0][0] == BURN_IN
    assert unpaired(np.zeros(0), np.zeros(0, bool), np.zeros(0)).shape == (0,)
    assert unpaired_difference(np.zeros(0), np.zeros(0, bool), np.zeros(0)) is None
