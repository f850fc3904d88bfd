"""Decisions set on held-out rows: guarantees by simulation, and comparisons with other libraries."""

from __future__ import annotations

import warnings

import crepes
import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from reviewguard.bundle.decision import Decision, log_odds
from reviewguard.errors import ConfigError, DataError
from reviewguard.evaluation import calibration, operating


def rows(
    rng: np.random.Generator, n: int, classes: int = 2, sharpness: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of a model that is overconfident by a factor, and labels drawn from the correct probabilities."""
    true = rng.normal(scale=2, size=(n, classes))
    y = (rng.random((n, 1)) > scipy.special.softmax(true, axis=1).cumsum(axis=1)[:, :-1]).sum(axis=1)
    return (true * sharpness).astype(np.float32), y


LENGTH_ONE = np.ones(20_000, dtype=np.int64)


class Logits(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier whose features are its logits."""

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes

    def fit(self, X: object, y: object) -> Logits:
        self.classes_ = np.arange(self.classes)
        return self

    def decision_function(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return X

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.int64]:
        return X.argmax(axis=1)


class TestCalibration:
    @pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
    def test_the_temperature_is_recovered(self, sharpness: float) -> None:
        logits, y = rows(np.random.default_rng(0), 8000, 3, sharpness)
        found = calibration.calibrate(logits, y)
        assert found.temperature == pytest.approx(sharpness, rel=0.08)
        assert found.after.value is not None
        assert found.after.value < 0.02
        if sharpness != 1.0:
            assert found.before.low is not None
            assert found.before.low > found.after.value
        assert sum(one.rows for one in found.bins) == found.rows == 8000
        assert "expected calibration error" in found.to_text()

    def test_calibration_equals_scikit_learns(self) -> None:
        logits, y = rows(np.random.default_rng(1), 500, 3, 2.5)
        model = FrozenEstimator(Logits(3).fit(logits, y))
        reference = CalibratedClassifierCV(model, method="temperature", ensemble=False).fit(logits, y)
        found = Decision(temperature=calibration.calibrate(logits, y).temperature)
        np.testing.assert_allclose(found.probabilities(logits), reference.predict_proba(logits), atol=2e-4)

    def test_every_class_needs_rows(self) -> None:
        with pytest.raises(DataError, match="lack 1 of the 3 classes"):
            calibration.calibrate(np.zeros((4, 3), np.float32), np.array([0, 1, 1, 0]))


class TestOperatingPoint:
    @pytest.mark.parametrize(("negatives", "max_fpr"), [(99, 0.05), (400, 0.01), (1000, 0.02)])
    def test_the_rate_holds_in_expectation_and_within_its_interval(self, negatives: int, max_fpr: float) -> None:
        rng = np.random.default_rng(0)
        rates, covered = [], []
        for _ in range(2000):
            logits = np.zeros((negatives + 50, 2), np.float32)
            logits[:, 1] = rng.normal(size=negatives + 50)
            logits[negatives:, 1] += 3
            y = (np.arange(negatives + 50) >= negatives).astype(np.int64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                point = operating.operating_point(logits, y, 1, max_fpr)
            rate = scipy.special.ndtr(-point.threshold)  # of new negatives, exactly
            rates.append(rate)
            covered.append(point.false_positive_rate.low <= rate <= point.false_positive_rate.high)
        noise = 3 * np.std(rates) / np.sqrt(len(rates))
        # Not higher, and not much lower, which would cost recall.
        assert max_fpr - 1.01 / (negatives + 1) - noise <= np.mean(rates) <= max_fpr + noise
        assert np.mean(covered) == pytest.approx(0.95, abs=0.015)

    def test_the_threshold_holds_on_the_rows_it_was_set_on(self) -> None:
        logits, y = rows(np.random.default_rng(2), 3000)
        for positive in (0, 1):
            point = operating.operating_point(logits, y, positive, 0.05)
            called = Decision(operating_point=point).scores(logits, positive, LENGTH_ONE[: len(y)]).argmax(axis=1) == positive
            assert (called & (y != positive)).sum() == point.false_positives <= 0.05 * point.negatives
            assert (called & (y == positive)).sum() == point.hits
            assert point.recall.value == point.hits / point.positives

    def test_too_few_rows_warn(self) -> None:
        logits, y = rows(np.random.default_rng(3), 120)
        with pytest.warns(UserWarning, match=r"cannot support a false positive rate of 1 %: at least 99"):
            point = operating.operating_point(logits, y, 1, 0.01, name="fake")
        assert point.false_positives == 0
        logits, y = rows(np.random.default_rng(3), 500)
        with pytest.warns(UserWarning, match="is only known to be"):
            operating.operating_point(logits, y, 1, 0.01)
        logits, y = rows(np.random.default_rng(3), 20_000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            operating.operating_point(logits, y, 1, 0.01)

    def test_invalid_arguments_are_refused(self) -> None:
        logits, y = rows(np.random.default_rng(4), 50)
        for rate in (0.0, 1.0, -1):
            with pytest.raises(ConfigError, match="max_fpr"):
                operating.operating_point(logits, y, 1, rate)
        with pytest.raises(DataError, match="all 50 are of one class"):
            operating.operating_point(logits, np.ones(50, np.int64), 1, 0.1)


class TestBands:
    """Thresholds by length, with the rate held in each group."""

    BOUNDS = (8, 20, 40)

    def make(self, seed: int, n: int = 6000) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], list[str]]:
        """Short negatives and those of shops score higher, so a single threshold would flag too many of them."""
        rng = np.random.default_rng(seed)
        y, words = rng.integers(0, 2, n), rng.integers(1, 90, n)
        groups = rng.choice(["products", "hotels", "shops", "cars"], n, p=[0.5, 0.3, 0.18, 0.02])
        logits = np.zeros((n, 2), np.float32)
        logits[:, 1] = rng.normal(size=n) + 4 * y + 2 * (words < 20) + 1 * (groups == "shops")
        return logits, y, words, groups.tolist()

    def test_the_rate_holds_in_each_band_and_each_large_group(self) -> None:
        logits, y, words, groups = self.make(0)
        point = operating.operating_point(logits, y, 1, 0.02, words=words, by_length=self.BOUNDS, groups=groups)
        called = Decision(operating_point=point).scores(logits, 1, words).argmax(axis=1) == 1
        assert [band.words for band in point.bands] == list(self.BOUNDS)
        for band, end in zip(point.bands, (*self.BOUNDS[1:], 10**9), strict=True):
            own = (y == 0) & (words >= band.words) & (words < end)
            assert called[own].mean() <= 0.02
            assert band.negatives == own.sum()
            assert band.false_positive_rate.value == (called[own].sum() + 1) / (own.sum() + 1)
        assert point.bands[0].threshold > point.bands[2].threshold + 1
        assert point.set_by == "shops"
        assert set(point.groups) == {"products", "hotels", "shops"}
        of = np.array(groups)
        for name, rate in point.groups.items():
            own = (y == 0) & (words >= 8) & (of == name)
            assert called[own].mean() <= 0.02
            assert rate.negatives == own.sum()
        assert point.threshold == max(band.threshold for band in point.bands)
        assert point.negatives == ((y == 0) & (words >= 8)).sum()
        assert "shops: false positive rate" in point.to_text()

    def test_the_rate_holds_on_new_rows_unlike_with_one_threshold(self) -> None:
        logits, y, words, groups = self.make(1, 20_000)
        new, truth, lengths, _ = self.make(2, 20_000)
        by_length = operating.operating_point(logits, y, 1, 0.02, words=words, by_length=self.BOUNDS, groups=groups)
        plain = operating.operating_point(logits, y, 1, 0.02)
        short = (truth == 0) & (lengths >= 8) & (lengths < 20)
        rates = [
            (Decision(operating_point=point).scores(new, 1, lengths).argmax(axis=1) == 1)[short].mean()
            for point in (by_length, plain)
        ]
        assert rates[0] < 0.025 < 0.05 < rates[1]

    def test_small_groups_are_pooled(self) -> None:
        logits, y, words, _ = self.make(3, 3000)
        groups = ["large"] * 1500 + [f"small {row % 20}" for row in range(1500)]
        point = operating.operating_point(logits, y, 1, 0.02, words=words, groups=groups)
        assert set(point.groups) == {"large", operating.OTHERS}
        assert not point.bands

    def test_invalid_arguments_are_refused(self) -> None:
        logits, y, words, _ = self.make(4, 500)
        for bounds in ((8, 8), (20, 8), (-1, 8)):
            with pytest.raises(ConfigError, match="by_length"):
                operating.operating_point(logits, y, 1, 0.1, words=words, by_length=bounds)
        with pytest.raises(DataError, match="the band from 1000 words"):
            operating.operating_point(logits, y, 1, 0.1, words=words, by_length=(8, 1000))


class TestOneSided:
    @pytest.mark.parametrize("rate", [0.1, 0.25])
    def test_the_review_rate_holds_and_no_text_is_assigned_to_the_negative_class(self, rate: float) -> None:
        logits, y, words, _ = TestBands().make(5)
        point = operating.operating_point(logits, y, 1, 0.02, words=words, by_length=(8, 20))
        abstention = operating.abstain_by_review_rate(logits, y, 1, rate, Decision(operating_point=point), words)
        decided = np.array(Decision(operating_point=point, abstention=abstention).decisions(logits, ["real", "fake"], 1, words))
        assert set(decided) == {"fake", "needs_review", "not_flagged"}
        long = words >= 8
        assert (decided[~long] == "needs_review").all()
        assert (decided[(y == 0) & long] == "needs_review").mean() == pytest.approx(rate, abs=0.002)
        odds, label = log_odds(logits)[:, 1], Decision(operating_point=point).scores(logits, 1, words).argmax(axis=1)
        assert ((decided == "fake") == (long & (label == 1))).all()
        assert odds[decided == "not_flagged"].max() < odds[(decided == "needs_review") & long].min()

    def test_the_error_rate_limits_the_positives_that_are_not_flagged(self) -> None:
        rng, missed = np.random.default_rng(9), []
        for _ in range(200):
            logits, y = rows(rng, 900)
            abstention = operating.abstain_by_error_rate(logits[:500], y[:500], 0.1, one_sided=True)
            decided = np.array(Decision(abstention=abstention).decisions(logits[500:], ["real", "fake"], 1, LENGTH_ONE[:400]))
            assert "real" not in decided
            missed.append(np.mean(decided[y[500:] == 1] == "not_flagged"))
        assert np.mean(missed) <= 0.1 + 3 * np.std(missed) / np.sqrt(len(missed))

    def test_a_review_rate_near_one_reviews_everything(self) -> None:
        logits, y, words, _ = TestBands().make(6, 500)
        abstention = operating.abstain_by_review_rate(logits, y, 1, 0.999, Decision(), words)
        assert (
            "not_flagged"
            not in Decision(abstention=abstention).decisions(logits[y == 0][:400], ["real", "fake"], 1, words[:400])[:1]
        )
        with pytest.raises(ConfigError, match="review_rate"):
            operating.abstain_by_review_rate(logits, y, 1, 1.0, Decision(), words)


class TestAbstention:
    @pytest.mark.parametrize("classes", [2, 4])
    @pytest.mark.parametrize("error_rate", [0.02, 0.1])
    def test_the_error_rate_of_each_class_holds_on_new_rows(self, classes: int, error_rate: float) -> None:
        rng = np.random.default_rng(0)
        wrong: list[list[float]] = []
        for _ in range(300):
            logits, y = rows(rng, 900, classes)
            abstention = operating.abstain_by_error_rate(logits[:500], y[:500], error_rate)
            certain, truth = Decision(abstention=abstention).certain(logits[500:]), y[500:]
            wrong.append([np.mean((certain[truth == c] >= 0) & (certain[truth == c] != c)) for c in range(classes)])
        mean, spread = np.mean(wrong, axis=0), np.std(wrong, axis=0) / np.sqrt(len(wrong))
        assert (mean <= error_rate + 3 * spread).all()

    @pytest.mark.parametrize("classes", [2, 3])
    def test_prediction_sets_equal_those_of_crepes(self, classes: int) -> None:
        logits, y = rows(np.random.default_rng(5), 800, classes)
        new, _ = rows(np.random.default_rng(6), 300, classes)
        abstention = operating.abstain_by_error_rate(logits, y, 0.1)
        ours = Decision(abstention=abstention)
        conformal = crepes.ConformalClassifier().fit(-log_odds(logits)[np.arange(len(y)), y], bins=y)
        sets = np.stack(
            [
                conformal.predict_set(-log_odds(new)[:, [c]], bins=np.full(len(new), c), confidence=0.9, smoothing=False)[:, 0]
                for c in range(classes)
            ],
            axis=1,
        )
        expected = np.where(sets.sum(axis=1) == 1, sets.argmax(axis=1), -1)
        assert (ours.certain(new) == expected).mean() > 0.99  # rows exactly at the limit may differ by rounding

    def test_too_few_rows_rule_out_no_class(self) -> None:
        logits, y = rows(np.random.default_rng(7), 12)
        abstention = operating.abstain_by_error_rate(logits, y, 0.01)
        assert (Decision(abstention=abstention).certain(logits) == -1).all()

    def test_invalid_arguments_are_refused(self) -> None:
        logits, y = rows(np.random.default_rng(8), 50)
        with pytest.raises(ConfigError, match="error_rate"):
            operating.abstain_by_error_rate(logits, y, 1.5)
        with pytest.raises(DataError, match="lack 1"):
            operating.abstain_by_error_rate(logits, np.zeros(50, np.int64), 0.1)
