"""From logits to probabilities, labels and abstention."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import scipy.special

from reviewguard.bundle.decision import Abstention, Band, Decision, OperatingPoint, log_odds
from reviewguard.bundle.estimate import Estimate
from reviewguard.errors import ConfigError

RATE = Estimate(0.0, 0.0, 0.0)


def point(threshold: float, **changes: object) -> OperatingPoint:
    made = OperatingPoint(
        threshold=threshold,
        max_fpr=0.01,
        negatives=999,
        false_positives=9,
        positives=1000,
        hits=900,
        false_positive_rate=Estimate(0.01, 0.005, 0.017),
        recall=Estimate(0.9, 0.88, 0.92),
    )
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[1e4, -1e4]], [[1, 0]]),
        ([[3e38, 3e38]], [[0.5, 0.5]]),
        ([[-3e38, -3e38, -3e38, -3e38]], [[0.25] * 4]),
        ([[0, np.log(3)]], [[0.25, 0.75]]),
        ([[-np.inf, 0]], [[0, 1]]),
    ],
)
def test_probabilities_are_stable(logits: list[list[float]], expected: list[list[float]]) -> None:
    probabilities = Decision().probabilities(np.array(logits, dtype=np.float32))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_probabilities_equal_scipys_softmax(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(scale=8, size=(50, 5)).astype(np.float32)
    expected = scipy.special.softmax(logits.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(Decision(temperature=temperature).probabilities(logits), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_log_odds_match_the_probabilities(classes: int) -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(50, classes)).astype(np.float32)
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(log_odds(logits), scipy.special.logit(probabilities), rtol=1e-6)


def test_log_odds_distinguish_probabilities_that_round_to_one() -> None:
    odds = log_odds(np.array([[0, 40], [0, 50], [-np.inf, 0]], dtype=np.float32))
    assert odds[:, 1].tolist() == [40, 50, np.inf]


@pytest.mark.parametrize("positive", [0, 1])
def test_a_text_on_the_threshold_is_positive(positive: int) -> None:
    logits = np.zeros((3, 2), dtype=np.float32)
    logits[:, positive] = [1.5, 2.0, 2.5]
    scores = Decision(operating_point=point(2.0)).scores(logits, positive, np.ones(3, np.int64))
    assert (scores.argmax(axis=1) == positive).tolist() == [False, True, True]
    margin = scores[:, positive] - scores[:, 1 - positive]
    assert (np.diff(margin) > 0).all()  # the order of the rows is preserved


def test_without_a_threshold_the_label_is_the_most_probable_class() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert (Decision().scores(logits, None, np.ones(50, np.int64)).argmax(axis=1) == logits.argmax(axis=1)).all()


def band(words: int, threshold: float) -> Band:
    return Band(words=words, threshold=threshold, negatives=9, positives=9, false_positive_rate=RATE, recall=RATE)


def test_the_threshold_follows_the_length() -> None:
    at = point(3.0, bands=[band(8, 2.0), band(20, 1.0)])
    words = np.array([0, 7, 8, 19, 20, 500])
    assert at.thresholds(words).tolist() == [3, 3, 2, 2, 1, 1]
    assert at.is_too_short(words).tolist() == [True, True, False, False, False, False]
    assert not point(3.0).is_too_short(words).any()
    logits = np.array([[0, 1.5]] * 6, dtype=np.float32)
    decision = Decision(operating_point=at)
    assert decision.scores(logits, 1, words).argmax(axis=1).tolist() == [0, 0, 0, 0, 1, 1]
    assert decision.decisions(logits, ["real", "fake"], 1, words) == ["needs_review"] * 2 + ["real"] * 2 + ["fake"] * 2


def test_a_one_sided_model_never_decides_on_the_negative_class() -> None:
    abstention = Abstention(error_rate=None, review_rate=0.2, floors=[0.0, -1.0], rows=[9, 9], one_sided=True)
    decision = Decision(operating_point=point(2.0, bands=[band(8, 2.0)]), abstention=abstention)
    logits = np.array([[0, 2], [0, 0], [0, -3], [0, 9]], dtype=np.float32)
    for positive, classes in ((1, ["real", "fake"]), (0, ["fake", "real"])):
        ordered = logits if positive else logits[:, ::-1]
        one_sided = msgspec.structs.replace(abstention, floors=abstention.floors if positive else abstention.floors[::-1])
        result = msgspec.structs.replace(decision, abstention=one_sided).decisions(
            ordered, classes, positive, np.array([9, 9, 9, 3])
        )
        assert result == ["fake", "needs_review", "not_flagged", "needs_review"]


def test_abstention_if_no_class_or_several_classes_remain() -> None:
    abstention = Abstention(error_rate=0.1, floors=[1.0, -3.0], rows=[10, 10])
    logits = np.array([[4, 0], [0, 1], [2, 0], [0, 0]], dtype=np.float32)
    # Row 0: only class 0 remains. Row 2: both classes remain. Other rows: only class 1 remains.
    assert Decision(abstention=abstention).certain(logits).tolist() == [0, 1, -1, 1]
    apart = Abstention(error_rate=0.1, floors=[1.0, 1.0], rows=[10, 10])
    assert Decision(abstention=apart).certain(logits).tolist() == [0, 1, 0, -1]


def test_precision_follows_prevalence() -> None:
    at = point(0.0)
    for prevalence in (0.01, 0.5):
        result = at.precision(prevalence)
        assert result.value == pytest.approx(0.9 * prevalence / (0.9 * prevalence + 0.01 * (1 - prevalence)))
        assert result.low is not None
        assert result.high is not None
        assert result.low < result.value < result.high
    few = point(0.0, negatives=99, false_positives=0).precision(0.01)
    many = point(0.0, negatives=9999, false_positives=99).precision(0.01)
    assert few.high - few.low > 2 * (many.high - many.low)  # type: ignore[operator]
    for wrong in (0.0, 1.0, 1.2):
        with pytest.raises(ConfigError, match="prevalence"):
            at.precision(wrong)


def test_a_decision_survives_json() -> None:
    decision = Decision(
        temperature=1.7, operating_point=point(0.3), abstention=Abstention(error_rate=0.1, floors=[-1.0, 2.0], rows=[5, 6])
    )
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision


def test_a_decision_fits_its_classes() -> None:
    abstention = Abstention(error_rate=0.1, floors=[0.0, 0.0], rows=[5, 6])
    assert Decision(operating_point=point(0.0), abstention=abstention).fits(2, "a")
    assert not Decision(abstention=abstention).fits(3, None)
    assert not Decision(operating_point=point(0.0)).fits(3, "a")
    assert not Decision(operating_point=point(0.0)).fits(2, None)
    assert Decision().fits(3, None)
    one_sided = Abstention(error_rate=0.1, floors=[0.0] * 3, rows=[1] * 3, one_sided=True)
    assert not Decision(abstention=one_sided).fits(3, None)
    assert Decision(operating_point=point(0.0, bands=[band(8, 0.0), band(20, 0.0)])).fits(2, "a")
    assert not Decision(operating_point=point(0.0, bands=[band(20, 0.0), band(8, 0.0)])).fits(2, "a")
    with pytest.raises(msgspec.ValidationError, match="> 0"):
        msgspec.json.decode(b'{"temperature": 0}', type=Decision)
