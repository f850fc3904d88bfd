"""Score a trained model on labelled rows."""

from __future__ import annotations

from reviewguard.data.reviews import Reviews
from reviewguard.data.tokens import word_counts
from reviewguard.evaluation.report import Report, make_report
from reviewguard.inference import trained_on
from reviewguard.inference.model import TrainedModel
from reviewguard.models.tfidf import TfidfEncoder, scores


def evaluate(trained: TrainedModel, reviews: Reviews, name: str, baseline: TfidfEncoder | None) -> Report:
    """Score a model and a baseline on the same rows.

    Args:
        trained: Trained model.
        reviews: Labelled rows. No row is dropped.
        name: Title of the report.
        baseline: The baseline that was fitted on the model's training rows. None: no baseline.

    Raises:
        DataError: If a text or label is missing, or if a label is not a class of the model.
    """
    manifest = trained.manifest
    texts, labels = reviews.require_complete(manifest.classes)
    logits, encoded = trained.logits(texts, progress="evaluating")
    seen = trained_on.seen(trained, texts)
    return make_report(
        name,
        labels,
        manifest.decision.scores(logits, trained.positive, word_counts(encoded)),
        scores(baseline, trained.normalized(texts)) if baseline else None,
        classes=manifest.classes,
        positive=manifest.positive,
        truncated=sum(item.truncated for item in encoded),
        seen=None if seen is None else int(seen.sum()),
    )
