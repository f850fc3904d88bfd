"""Models saved by earlier releases still load and give unchanged predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reviewguard import Classifier
from reviewguard.bundle.manifest import FORMAT_VERSION

GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(path.name for path in GOLDEN.glob("format-*"))


def test_the_current_format_has_its_golden_bundle() -> None:
    assert f"format-{FORMAT_VERSION}" in FORMATS


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", ["saved", "exported"])
def test_old_bundles_give_unchanged_predictions(format_: str, kind: str) -> None:
    expected = json.loads((GOLDEN / format_ / "expected.json").read_text())
    classifier = Classifier.from_pretrained(GOLDEN / format_ / kind)
    fitted = classifier._trained()
    result = fitted.manifest.decision.probabilities(
        fitted.logits(expected["texts"])[0]
    )  # one text is empty, which predict_proba refuses
    np.testing.assert_allclose(result, expected["probabilities"], atol=1e-4)
    assert classifier.classes_.tolist() == ["fake", "real"]
    assert [p.truncated for p in classifier.stream(expected["texts"])] == [False, False, False, True]


def test_the_report_of_an_old_bundle_is_readable() -> None:
    report = Classifier.from_pretrained(GOLDEN / FORMATS[-1] / "exported").evaluate((["a kettle", "a pan"], ["fake", "real"]))
    assert report.baseline is not None
