"""Fitting a bag of n-grams with scikit-learn and combining it with a fine-tuned model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from reviewguard.errors import DataError
from reviewguard.inference.scoring import Floats
from reviewguard.models.heads import LinearHead
from reviewguard.models.ngrams import NgramBag, hashed, type_token_ratio
from reviewguard.models.text_model import TextModel
from reviewguard.training.backends._embed import coefficients, tensor
from reviewguard.training.finetuning.batches import Rows, row_weights

#: Inverse strength of regularisation. N-grams separate most training rows without error, and larger values change little.
_C: Final = 4.0
#: Standard deviation of the type-token ratio features in the SVM's input; the n-gram features of a text have a norm of about 1.
_SPREAD: Final = 0.3


def widen(model: TextModel, train: Rows, validation: Rows, logits: Floats, buckets: int, seed: int) -> None:
    """Fit a bag of n-grams, weigh its scores against the model's logits, and combine both in one head.

    The bag is a one-vs-rest linear support vector machine. The weights are a multinomial logistic regression on the logits and
    n-gram scores. They are fitted on validation rows, because the model's logits on training rows are overconfident.

    Args:
        model: Model with a linear head; changed in place.
        train: Rows to fit the bag on.
        validation: Rows to fit the weights on.
        logits: The model's logits on the validation rows, float32 (n, classes).
        buckets: Number of buckets that n-grams are hashed into.
        seed: Seed of the SVM solver.

    Raises:
        DataError: If a class has no validation row.
    """
    assert isinstance(model.head, LinearHead)
    classes = logits.shape[1]
    if missing := classes - len(np.unique(validation.y)):
        raise DataError(f"{missing} of {classes} classes or subclasses have no validation row; n-grams are weighed on them")
    ratios = np.concatenate([type_token_ratio(*text).numpy() for text in _texts(train)])
    scaler = StandardScaler().fit(ratios)
    inputs = sparse.hstack([_counts(train, buckets), _SPREAD * scaler.transform(ratios)]).tocsr()
    with warnings.catch_warnings():
        # If rows are hard to separate, the solver converges slowly at the end, and stopping early costs no accuracy.
        warnings.simplefilter("ignore", ConvergenceWarning)
        weight = row_weights(train.y, train.weight, "balanced")
        svm = LinearSVC(C=_C, random_state=seed).fit(inputs, train.y, weight)
    # The mean that the scaler subtracts is absorbed by the intercept of the logistic regression.
    ratio_weight = svm.coef_[:, buckets:] * (_SPREAD / scaler.scale_)
    bag = NgramBag(tensor(svm.coef_[:, :buckets].T), tensor(ratio_weight.T))
    with torch.inference_mode():
        scores = np.concatenate([bag(*text).numpy() for text in _texts(validation)])
    weigher = LogisticRegression(max_iter=2000).fit(np.column_stack([logits, scores]), validation.y)
    weights, bias = coefficients(weigher)
    logit_weights, bag_weights = weights[:, :classes], weights[:, classes:]
    head, device = model.head, model.head.weight.device
    combined = np.column_stack([logit_weights @ head.weight.detach().cpu().numpy(), bag_weights])
    bias = bias + logit_weights @ head.bias.detach().cpu().numpy()
    model.head = LinearHead(tensor(combined), tensor(bias)).to(device)
    model.bag = bag.to(device)


def _counts(rows: Rows, buckets: int) -> sparse.csr_matrix:
    """Counts of each bucket in each text, divided by the square root of the text's number of n-grams: (n, buckets)."""
    hashes = [hashed(*text, buckets)[0][0].numpy() for text in _texts(rows)]
    lengths = np.array([len(grams) for grams in hashes])
    values = np.repeat(1 / np.sqrt(lengths), lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    counts = sparse.csr_matrix((values, np.concatenate(hashes), ends), shape=(len(hashes), buckets))
    counts.sum_duplicates()
    return counts


def _texts(rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the token ids and mask of each text separately, int64 (1, length)."""
    for item in rows.encoded:
        ids = torch.tensor([item.ids])
        yield ids, torch.ones_like(ids)
