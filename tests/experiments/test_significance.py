"""Statistics of differences, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from reviewguard.bundle.estimate import Estimate
from reviewguard.experiments import significance
from reviewguard.experiments.significance import Difference, front, paired, recommend

SIMULATIONS = 500


@pytest.fixture
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_DRAWS", 200)


def _right(rng: np.random.Generator, accuracy: float, rows: int = 80, seeds: int = 2) -> NDArray[np.bool_]:
    """Correctness of runs that agree on most rows, like runs of one model."""
    return rng.random((seeds, rows)) < np.where(rng.random(rows) < accuracy, 0.95, 0.05)


@pytest.mark.usefixtures("_few_draws")
def test_equal_models_rarely_differ() -> None:
    rng = np.random.default_rng(0)
    found = [paired({"a": _right(rng, 0.8), "b": _right(rng, 0.8)})["a", "b"] for _ in range(SIMULATIONS)]
    assert 0.02 <= np.mean([one.significant for one in found]) <= 0.08, "5 %, within the error of this many simulations"
    assert np.mean([one.p < 0.5 for one in found]) == pytest.approx(0.5, abs=0.08)


@pytest.mark.usefixtures("_few_draws")
def test_intervals_cover_the_true_difference() -> None:
    rng = np.random.default_rng(1)
    true = 0.9 * (0.8 - 0.6)  # from the rates in `_right`
    found = [paired({"a": _right(rng, 0.8), "b": _right(rng, 0.6)})["a", "b"].difference for _ in range(SIMULATIONS)]
    assert 0.91 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.98
    assert np.mean([one.value for one in found]) == pytest.approx(true, abs=0.02)


def test_a_real_difference_is_significant() -> None:
    rng = np.random.default_rng(2)
    pairs = paired({"good": _right(rng, 0.9, rows=400), "bad": _right(rng, 0.7, rows=400), "same": _right(rng, 0.9, rows=400)})
    assert pairs["good", "bad"].significant
    assert pairs["good", "bad"].difference.low > 0
    assert pairs["same", "bad"].significant
    assert not pairs["good", "same"].significant


def test_both_orders_are_consistent() -> None:
    rng = np.random.default_rng(3)
    right = {name: _right(rng, accuracy) for name, accuracy in (("a", 0.9), ("b", 0.7), ("c", 0.8))}
    pairs = paired(right)
    assert pairs.keys() == {(one, other) for one in "abc" for other in "abc" if one != other}
    for one, other in pairs:
        there, back = pairs[one, other], pairs[other, one]
        difference = right[one].mean() - right[other].mean()
        assert there.difference.value == pytest.approx(difference)
        assert there.difference == Estimate(-back.difference.value, -back.difference.high, -back.difference.low)
        assert there.difference.low < difference < there.difference.high
        assert there.p == back.p


def test_p_values_are_adjusted_for_all_pairs() -> None:
    rng = np.random.default_rng(4)
    right = {name: _right(rng, accuracy) for name, accuracy in (("a", 0.9), ("b", 0.75), ("c", 0.8))}
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    alone = [paired({one: right[one], other: right[other]})[one, other].p for one, other in pairs]
    together = paired(right)
    assert [together[pair].p for pair in pairs] == pytest.approx(false_discovery_control(alone).tolist())
    assert [together[pair].p for pair in pairs] != pytest.approx(alone)


def test_equal_answers_do_not_differ() -> None:
    right = _right(np.random.default_rng(5), 0.8)
    of = paired({"a": right, "b": right})["a", "b"]
    assert of == Difference(difference=Estimate(0.0, 0.0, 0.0), p=1.0)
    assert not of.significant


def test_a_single_model_has_no_pairs() -> None:
    assert paired({"alone": np.ones((1, 5), dtype=bool)}) == {}


def test_front() -> None:
    points = {"slow": (1.0, 0.9), "beaten": (0.5, 0.8), "fast": (9.0, 0.6), "middle": (4.0, 0.7), "as fast": (9.0, 0.5)}
    assert front(points) == ["fast", "middle", "slow"]
    assert front({"a": (1.0, 1.0)}) == ["a"]


def _pairs(*significant: str) -> dict[tuple[str, str], Difference]:
    """Differences from `best`, of which the named ones are significant."""
    return {
        ("best", name): Difference(difference=Estimate(0.1, 0.05, 0.15), p=0.01 if name in significant else 0.5)
        for name in ("near", "worse")
    }


def test_the_fastest_model_that_is_not_worse_is_recommended() -> None:
    accuracy, speed = {"near": 0.89, "worse": 0.7, "best": 0.9}, {"near": 10.0, "worse": 100.0, "best": 1.0}
    assert recommend(accuracy, speed, _pairs("worse")) == "near"
    assert recommend(accuracy, speed, _pairs("worse", "near")) == "best"
    assert recommend(accuracy, speed, _pairs()) == "worse"
    assert recommend(accuracy, {**speed, "best": 1000.0}, _pairs()) == "best"
    assert recommend({"alone": 0.5}, {"alone": 1.0}, {}) == "alone"
