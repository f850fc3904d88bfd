"""Score a trained model on labelled rows."""

from __future__ import annotations

from reviewguard.data.reviews import Reviews
from reviewguard.data.tokens import word_counts
from reviewguard.evaluation.baseline import FILES, Baseline
from reviewguard.evaluation.report import Report, make_report
from reviewguard.inference import trained_on
from reviewguard.inference.model import TrainedModel


def evaluate(trained: TrainedModel, reviews: Reviews, name: str) -> Report:
    """Score a model next to the baseline that was fitted on the same training rows, if the model contains one.

    Args:
        trained: Trained model.
        reviews: Labelled rows. No row is dropped.
        name: Title of the report.

    Raises:
        DataError: If a text or label is missing, or if a label is not a class of the model.
    """
    manifest = trained.manifest
    texts, labels = reviews.require_complete(manifest.classes)
    logits, encoded = trained.logits(texts, progress="evaluating")
    baseline = Baseline.from_files({name: trained.read(name) for name in FILES}) if FILES[0] in trained.files else None
    seen = trained_on.seen(trained, texts)
    return make_report(
        name,
        labels,
        manifest.decision.scores(logits, trained.positive, word_counts(encoded)),
        baseline.scores(trained.normalized(texts)) if baseline else None,
        classes=manifest.classes,
        positive=manifest.positive,
        truncated=sum(item.truncated for item in encoded),
        seen=None if seen is None else int(seen.sum()),
    )
