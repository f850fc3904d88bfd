"""Logistic regression on embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from sklearn.linear_model import LogisticRegression

from reviewguard.config import EncoderRecipe
from reviewguard.models.encoder import LoadedEncoder
from reviewguard.models.heads import LinearHead
from reviewguard.training.backends import Labelled, Trained
from reviewguard.training.backends._embed import Vectors, coefficients, load, logits, tensor, train_head
from reviewguard.training.finetuning.batches import row_weights
from reviewguard.training.finetuning.checkpoint import Run

__all__ = ["Config", "fit_head", "load", "logits", "train"]


class Config(EncoderRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of logistic regression.

    Attributes:
        C: Inverse strength of the L2 penalty; the study uses 1.
        class_weight: "balanced" weights rows inversely to the frequency of their class; "none" weights all rows equally.
        max_iter: Maximum number of L-BFGS iterations.
    """

    C: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    class_weight: Literal["balanced", "none"] = "balanced"
    max_iter: Annotated[int, msgspec.Meta(ge=1)] = 2000


def train(
    train: Labelled, validation: Labelled | None, *, classes: Sequence[str], encoder: LoadedEncoder, config: Config, run: Run
) -> Trained:
    """Fit scikit-learn's LogisticRegression and copy it into a torch head."""
    return train_head(lambda vectors, _: fit_head(vectors, config), train, validation, encoder, run)


def fit_head(train: Vectors, config: Config) -> LinearHead:
    """Fit on embeddings, float32 (n, width). With two classes, the logit of the first is 0."""
    weight = row_weights(train.y, train.weight, config.class_weight)
    fitted = LogisticRegression(C=config.C, max_iter=config.max_iter).fit(train.x, train.y, sample_weight=weight)
    coef, intercept = coefficients(fitted)
    return LinearHead(tensor(coef), tensor(intercept))
