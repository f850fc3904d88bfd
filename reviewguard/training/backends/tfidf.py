"""A linear support vector machine on TF-IDF of character n-grams: the baseline that other models are compared with.

It is case-sensitive. On generated reviews it outperforms word unigrams and bigrams; including rarer n-grams does not improve it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from reviewguard.config import Positive, Recipe
from reviewguard.data.tokens import MAX_CHARS, Tokenizer
from reviewguard.errors import ConfigError, DataError
from reviewguard.inference.scoring import Floats, score
from reviewguard.models.device import best_device
from reviewguard.models.heads import LinearHead
from reviewguard.models.text_model import TextModel
from reviewguard.models.tfidf import LONGEST, SHORTEST, TfidfEncoder, character_tokenizer, with_supported
from reviewguard.training.backends import Labelled, Trained
from reviewguard.training.backends._embed import tensor
from reviewguard.training.finetuning.batches import row_weights
from reviewguard.training.finetuning.checkpoint import Run


class Config(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the TF-IDF classifier. Its tokens are characters, in `data.min_tokens` and `data.max_tokens` too.

    Attributes:
        C: Inverse strength of the L2 penalty.
        class_weight: "balanced" weights rows inversely to the frequency of their class; "none" weights all rows equally.
        max_features: Maximum number of n-grams, the most frequent ones.
        max_length: Maximum number of characters of a text; longer texts are truncated, which is reported.
    """

    C: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    class_weight: Literal["balanced", "none"] = "none"
    max_features: Positive = 100_000
    max_length: Annotated[int, msgspec.Meta(ge=8, le=MAX_CHARS)] = MAX_CHARS


class Characters(NamedTuple):
    """What is loaded before training: only a tokenizer. The encoder is fitted."""

    tokenizer: Tokenizer

    def prepared(self, texts: Sequence[str]) -> Characters:
        """Nothing to do: the encoder is fitted by `train`."""
        return self

    def pinned(self, recipe: Recipe) -> Recipe:
        """The recipe, unchanged."""
        return recipe

    def files(self) -> dict[str, bytes]:
        """No files."""
        return {}


def load(config: Config) -> Characters:
    """Create the tokenizer."""
    return Characters(character_tokenizer(config.max_length))


def train(
    train: Labelled, validation: Labelled | None, *, classes: Sequence[str], encoder: Characters, config: Config, run: Run
) -> Trained:
    """Fit scikit-learn's TfidfVectorizer and LinearSVC and copy them into an encoder of torch."""
    if run.resume:
        raise ConfigError("the backend tfidf has no checkpoints; omit resume")
    fitted = fit(train, len(classes), config)
    head = LinearHead(torch.eye(len(classes)), torch.zeros(len(classes)))  # the scores of the encoder are the logits
    return Trained(TextModel(fitted, head).eval().requires_grad_(False).to(best_device()))


def fit(train: Labelled, classes: int, config: Config) -> TfidfEncoder:
    """Fit to normalised texts. With two classes, the scores of a text are opposite numbers.

    Args:
        train: Rows, with at least one of each class.
        classes: Number of classes.
        config: Settings.

    Raises:
        DataError: If no text has two characters.
    """
    texts = [with_supported(text[: config.max_length]) for text in train.texts]
    if all(len(text) < SHORTEST for text in texts):
        raise DataError(f"no training text has {SHORTEST} characters; tfidf learns from character n-grams")
    vectorizer = TfidfVectorizer(
        analyzer="char",
        ngram_range=(SHORTEST, LONGEST),
        lowercase=False,
        sublinear_tf=True,
        max_features=config.max_features,
    )
    vectors = vectorizer.fit_transform(texts)
    weight = row_weights(train.y, train.weight, config.class_weight)
    svm = LinearSVC(C=config.C, random_state=config.seed).fit(vectors, train.y, weight)
    coef, intercept = svm.coef_, svm.intercept_
    if classes == 2:
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    terms = vectorizer.get_feature_names_out().tolist()
    return TfidfEncoder(terms, tensor(vectorizer.idf_), tensor(coef), tensor(intercept)).eval().requires_grad_(False)


def logits(model: TextModel, texts: list[str], *, encoder: Characters) -> Floats:
    """Compute logits, float32 (n, classes)."""
    return score(model, encoder.tokenizer, encoder.tokenizer.encode(texts), "evaluating")
