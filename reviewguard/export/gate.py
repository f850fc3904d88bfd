"""Checks of an exported graph before it is written: it must reproduce torch for every text, independent of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from reviewguard.data.tokens import Encoded, word_counts
from reviewguard.errors import ExportError
from reviewguard.evaluation.metrics import calibration_error
from reviewguard.export.report import Fidelity, Flip, Limits
from reviewguard.inference.engines.cores import available_cores
from reviewguard.inference.engines.onnx import OnnxScorer
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.scoring import Floats
from reviewguard.models.text_model import TextModel

Precision: TypeAlias = Literal["fp32", "int8"]
#: Rows and length of the batches of random tokens; None: the model's maximum length.
_SHAPES: Final = ((1, 1), (1, 7), (2, 16), (3, 33), (5, 64), (8, 21), (1, None), (2, None))
#: Number of texts scored alone and in batches, number of these batches, and number of other texts in each.
_WATCHED, _COMPANIES, _OTHERS = 2, 50, 4
#: Maximum length in words of the generated texts that are used without validation texts.
_WORDS: Final = 32
#: Maximum number of changed texts in a report.
_NAMED: Final = 5
_SHOWN: Final = 80


@dataclass(frozen=True)
class Judges:
    """Validation texts with the results of torch.

    Attributes:
        texts: Texts, not normalised.
        encoded: Tokens of the texts.
        y: Class indices, int64 (n,).
        logits: Logits of torch, float32 (n, classes).
    """

    texts: Sequence[str]
    encoded: Sequence[Encoded]
    y: NDArray[np.int64]
    logits: Floats


def judge(
    graph: Path, files: Sequence[Path], precision: Precision, trained: TrainedModel, judges: Judges, limits: Limits
) -> Fidelity:
    """Compare a graph with the model that it was exported from.

    Args:
        graph: ONNX file.
        files: All files of the graph.
        precision: Precision of the graph.
        trained: Model whose scorer is the torch model, without adapters.
        judges: Validation texts; may be empty.
        limits: Maximum differences.

    Raises:
        ExportError: If a limit is exceeded. The message lists texts whose label changed.
    """
    assert isinstance(trained.scorer, TextModel)
    classes = trained.manifest.classes
    scorer = OnnxScorer(graph, classes, available_cores(), precision)
    worst = _on_shapes(trained.scorer, scorer, trained.manifest.max_length)
    flips: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    f1 = calibration = None
    flipped = []
    if judges.texts:
        logits, _ = replace(trained, scorer=scorer).logits(judges.texts, f"judging {precision}")
        worst = max(worst, float(np.abs(logits - judges.logits).max()))
        decision = trained.manifest.decision
        before, after = decision.probabilities(judges.logits), decision.probabilities(logits)
        words = word_counts(judges.encoded)
        labels = [decision.scores(logits_of, trained.positive, words).argmax(axis=1) for logits_of in (judges.logits, logits)]
        flips = np.flatnonzero(labels[0] != labels[1])
        f1 = _f1(judges.y, labels[1], trained) - _f1(judges.y, labels[0], trained)
        calibration = calibration_error(judges.y, after) - calibration_error(judges.y, before)
        flipped = [
            Flip(
                row=int(row),
                text=judges.texts[row][:_SHOWN],
                torch=(classes[labels[0][row]], float(before[row, labels[0][row]])),
                graph=(classes[labels[1][row]], float(after[row, labels[1][row]])),
            )
            for row in flips[:_NAMED]
        ]
    fidelity = Fidelity(
        mib=sum(file.stat().st_size for file in files) / 2**20,
        logits=worst,
        neighbours=_in_company(scorer, trained, judges.encoded),
        texts=len(judges.texts),
        flips=len(flips),
        f1=f1,
        calibration=calibration,
        flipped=flipped,
    )
    _require(fidelity, precision, limits)
    return fidelity


def _require(fidelity: Fidelity, precision: Precision, limits: Limits) -> None:
    exceeded = []
    if precision == "fp32" and not fidelity.logits <= limits.logits:
        exceeded.append(f"a logit differs from torch by {fidelity.logits:.3g} (at most {limits.logits:g})")
    if not fidelity.neighbours <= limits.neighbours:
        exceeded.append(
            f"a probability changes by {fidelity.neighbours:.3g} with the rest of its batch (at most {limits.neighbours:g})"
        )
    if fidelity.texts and not fidelity.flips / fidelity.texts <= limits.flips:
        exceeded.append(f"{fidelity.flips} of {fidelity.texts} texts change their label (at most {100 * limits.flips:g} %)")
    if fidelity.f1 is not None and not abs(fidelity.f1) <= limits.f1:
        exceeded.append(f"F1 changes by {100 * fidelity.f1:+.2f} points (at most {100 * limits.f1:g})")
    if exceeded:
        examples = "".join(f"\n  {flip.to_text()}" for flip in fidelity.flipped)
        raise ExportError(f"the {precision} graph differs from the model: {'; '.join(exceeded)}. Nothing was written{examples}")


def _on_shapes(model: TextModel, scorer: OnnxScorer, max_length: int) -> float:
    """The largest difference of a logit on padded batches of random tokens, of several shapes."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for rows, longest in _SHAPES:
        length = longest or max_length
        lengths = rng.integers(1, length + 1, size=rows)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        batch = {"input_ids": model.encoder.random_ids(rng, rows, length) * mask, "attention_mask": mask}
        worst = max(worst, float(np.abs(scorer.logits(batch) - model.logits(batch)).max()))
    return worst


def _in_company(scorer: OnnxScorer, trained: TrainedModel, encoded: Sequence[Encoded]) -> float:
    """The largest change of a probability between a text alone and the same text in many batches."""
    rng, pad = np.random.default_rng(0), trained.tokenizer.pad
    if not encoded:
        encoded = trained.tokenizer.encode([f"{'so ' * int(words)}good" for words in rng.integers(0, _WORDS, size=50)])
    by_length = sorted(encoded, key=lambda item: len(item.ids))
    # Short texts have the most padding, and so are the most sensitive to it.
    watched = [by_length[int(place)] for place in np.linspace(0, len(by_length) // 2, _WATCHED)]
    probabilities = trained.manifest.decision.probabilities
    alone = probabilities(np.concatenate([scorer.logits(pad([item])) for item in watched]))
    worst = 0.0
    for _ in range(_COMPANIES):
        others = [encoded[row] for row in rng.integers(0, len(encoded), size=_OTHERS)]
        together = probabilities(scorer.logits(pad([*watched, *others])))[:_WATCHED]
        worst = max(worst, float(np.abs(together - alone).max()))
    return worst


def _f1(y: NDArray[np.int64], called: NDArray[np.int64], trained: TrainedModel) -> float:
    if trained.positive is None:
        return float(f1_score(y, called, average="macro", zero_division=0.0))
    return float(f1_score(y, called, pos_label=trained.positive, zero_division=0.0))
