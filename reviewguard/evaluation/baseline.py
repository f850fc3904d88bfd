"""The TF-IDF baseline that is reported next to every result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from reviewguard.errors import BundleError
from reviewguard.inference.scoring import Floats

TERMS_FILE: Final = "baseline.json"
WEIGHTS_FILE: Final = "baseline.safetensors"
FILES: Final = (TERMS_FILE, WEIGHTS_FILE)
_TERMS: Final = 100_000


class Baseline:
    """A linear support vector machine on TF-IDF of the most frequent character 2- to 5-grams, case-sensitive.

    On generated reviews it outperforms word unigrams and bigrams; including rarer n-grams does not improve it.
    """

    def __init__(self, terms: list[str], idf: Floats, weight: Floats, bias: Floats) -> None:
        """Build the baseline from fitted coefficients.

        Args:
            terms: The n-grams, t of them.
            idf: Inverse document frequencies, shape (t,).
            weight: Coefficients, shape (classes, t).
            bias: Intercepts, shape (classes,).
        """
        self._terms, self._idf, self._weight, self._bias = terms, idf, weight, bias
        self._vectorizer = _vectorizer(vocabulary=terms)
        self._vectorizer.idf_ = idf.astype(np.float64)

    @classmethod
    def fit(cls, texts: Sequence[str], y: NDArray[np.int64], classes: int, seed: int) -> Baseline:
        """Fit to normalised texts and class indices, int64 (n,), with every class present."""
        vectorizer = _vectorizer(max_features=_TERMS)
        svm = LinearSVC(random_state=seed).fit(vectorizer.fit_transform(texts), y)
        weight, bias = svm.coef_, svm.intercept_
        if classes == 2:
            weight, bias = np.vstack([-weight, weight]), np.concatenate([-bias, bias])
        terms = vectorizer.get_feature_names_out().tolist()
        return cls(terms, vectorizer.idf_.astype(np.float32), weight.astype(np.float32), bias.astype(np.float32))

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Signed distances of normalised texts from each class's hyperplane, float64 (n, classes)."""
        matrix: csr_matrix = self._vectorizer.transform(texts)
        return np.asarray(matrix @ self._weight.T.astype(np.float64) + self._bias)

    def to_files(self) -> dict[str, bytes]:
        """Contents of the bundle files."""
        # safetensors writes raw memory, so arrays must be in C order.
        arrays = {"idf": self._idf, "weight": self._weight, "bias": self._bias}
        tensors = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        return {TERMS_FILE: msgspec.json.encode(self._terms), WEIGHTS_FILE: safetensors.numpy.save(tensors)}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Baseline:
        """Rebuild the baseline from the result of `to_files`.

        Raises:
            BundleError: If a file is malformed.
        """
        try:
            terms = msgspec.json.decode(files[TERMS_FILE], type=list[str])
            tensors = safetensors.numpy.load(files[WEIGHTS_FILE])
            shapes = [tensors[name].shape for name in ("idf", "weight", "bias")]
            classes = len(tensors["bias"])
            if shapes != [(len(terms),), (classes, len(terms)), (classes,)]:
                raise ValueError(f"{len(terms)} terms with tensors of shapes {shapes}")
            return cls(terms, tensors["idf"], tensors["weight"], tensors["bias"])
        except (msgspec.MsgspecError, safetensors.SafetensorError, KeyError, ValueError) as error:
            raise BundleError(f"the baseline's files are malformed: {error}") from error


def _vectorizer(vocabulary: list[str] | None = None, max_features: int | None = None) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char", ngram_range=(2, 5), lowercase=False, sublinear_tf=True, vocabulary=vocabulary, max_features=max_features
    )
