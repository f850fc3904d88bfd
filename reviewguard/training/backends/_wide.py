"""A bag of n-grams put beside a trained encoder: fitted by scikit-learn, and copied into the one model."""

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
from reviewguard.models.ngrams import NgramBag, hashed, variety
from reviewguard.models.text_model import TextModel
from reviewguard.training.backends._embed import coefficients, tensor
from reviewguard.training.finetuning.batches import Rows, row_weights

#: Inverse strength of regularisation. N-grams part most training rows without error, and from here on more changes little.
_C: Final = 4.0
#: Standard deviation of a text's variety, as the machine sees it: a text's n-grams, all together, have a length of about 1.
_SPREAD: Final = 0.3


def widen(model: TextModel, train: Rows, validation: Rows, logits: Floats, buckets: int, seed: int) -> None:
    """Fit a bag of n-grams, weigh its scores against the model's logits, and fold both into one head.

    The bag is a linear support vector machine, one class against the rest. The model's logits on training rows are too good, so
    the weights between both, a small multinomial logistic regression, are fitted on validation rows.

    Args:
        model: With a linear head; changed in place.
        train: To fit the bag on.
        validation: To fit the weights on.
        logits: Of the model, on the validation rows, float32 (n, classes).
        buckets: That n-grams are hashed into.
        seed: Of the machine's solver.

    Raises:
        DataError: If a class has no validation row.
    """
    assert isinstance(model.head, LinearHead)
    classes = logits.shape[1]
    if missing := classes - len(np.unique(validation.y)):
        raise DataError(f"{missing} of {classes} classes or subclasses have no validation row, by which n-grams are weighed")
    varieties = np.concatenate([variety(*text).numpy() for text in _texts(train)])
    scaler = StandardScaler().fit(varieties)
    inputs = sparse.hstack([_counts(train, buckets), _SPREAD * scaler.transform(varieties)]).tocsr()
    with warnings.catch_warnings():
        # Where rows are hard to part its solver crawls at the end; what it has by then does as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        weight = row_weights(train.y, train.weight, "balanced")
        machine = LinearSVC(C=_C, random_state=seed).fit(inputs, train.y, weight)
    # The mean that the scaler takes off is left to the intercept of what weighs the scores.
    of_variety = machine.coef_[:, buckets:] * (_SPREAD / scaler.scale_)
    bag = NgramBag(tensor(machine.coef_[:, :buckets].T), tensor(of_variety.T))
    with torch.inference_mode():
        scores = np.concatenate([bag(*text).numpy() for text in _texts(validation)])
    weigher = LogisticRegression(max_iter=2000).fit(np.column_stack([logits, scores]), validation.y)
    of_both, bias = coefficients(weigher)
    of_logits, of_bag = of_both[:, :classes], of_both[:, classes:]
    before, device = model.head, model.head.weight.device
    folded = np.column_stack([of_logits @ before.weight.detach().cpu().numpy(), of_bag])
    bias = bias + of_logits @ before.bias.detach().cpu().numpy()
    model.head = LinearHead(tensor(folded), tensor(bias)).to(device)
    model.bag = bag.to(device)


def _counts(rows: Rows, buckets: int) -> sparse.csr_matrix:
    """How often each bucket occurs in a text, divided by the root of the text's n-grams: (n, buckets)."""
    found = [hashed(*text, buckets)[0][0].numpy() for text in _texts(rows)]
    lengths = np.array([len(grams) for grams in found])
    values = np.repeat(1 / np.sqrt(lengths), lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    counts = sparse.csr_matrix((values, np.concatenate(found), ends), shape=(len(found), buckets))
    counts.sum_duplicates()
    return counts


def _texts(rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and mask of each text alone, int64 (1, length)."""
    for item in rows.encoded:
        ids = torch.tensor([item.ids])
        yield ids, torch.ones_like(ids)
