"""One run, from rows to scores, in the process that `runs` starts for it."""

from __future__ import annotations

import hashlib
import shutil
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from reviewguard import files
from reviewguard.bundle.decision import Decision, log_odds
from reviewguard.config import DataConfig, decode
from reviewguard.data.clean import CleaningReport, clean
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import class_indices
from reviewguard.evaluation import operating
from reviewguard.evaluation.baseline import Baseline
from reviewguard.evaluation.metrics import measure
from reviewguard.experiments.jobs import BASELINE, Cost, Result, Task
from reviewguard.experiments.results import scores_file
from reviewguard.inference.engines.cores import available_cores
from reviewguard.inference.scoring import score
from reviewguard.models.device import best_device, peak_memory_mib
from reviewguard.training.backends import get_backend, recipe_from
from reviewguard.training.finetuning.checkpoint import Run
from reviewguard.training.history import History
from reviewguard.training.plan import classes_of, make_plan
from reviewguard.training.train import learn

_PACKAGES = ("reviewguard", "torch", "transformers", "scikit-learn")
#: Number of rows that speed is measured on.
_TIMED: int = 1000


class Trained(NamedTuple):
    """A trained candidate or baseline; `score` returns the scores (n, classes) of raw texts."""

    score: Callable[[list[str]], NDArray[np.floating]]
    timed: Callable[[list[str]], object]
    classes: list[str]
    positive: str | None
    rows: int
    seconds: float
    model_mib: float
    cleaning: CleaningReport | None = None
    history: History | None = None


def execute(task: Task, key: str, folder: Path) -> Result:
    """Train, score, write the scores, and measure the cost."""
    baseline = task.job.recipe["backend"] == BASELINE
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        trained = _baseline(task) if baseline else _classifier(task, folder / "runs" / key)
        classes, positive = trained.classes, trained.positive
        logits, scores, at_point = {}, {}, {}
        decision = Decision()
        if positive is not None:
            texts, labels = task.validation.require_complete(classes)
            held_out, y = trained.score(texts), class_indices(labels, classes)
            point = operating.operating_point(held_out, y, classes.index(positive), task.job.max_fpr, name=positive)
            decision = Decision(operating_point=point)
        for name, part in task.scored.items():
            texts, labels = part.require_complete(classes)
            y, logits[name] = class_indices(labels, classes), trained.score(texts)
            scores[name] = measure(y, log_odds(logits[name]), classes, positive)
            if positive is not None:
                words = np.array([len(text.split()) for text in texts])
                at_point[name] = measure(y, decision.scores(logits[name], classes.index(positive), words), classes, positive)
        texts = [text for part in task.scored.values() for text in part.require_complete()[0]][:_TIMED]
    scores_file(folder, key).parent.mkdir(exist_ok=True)
    tensors = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in logits.items()}
    content = safetensors.numpy.save(tensors)
    files.replace(scores_file(folder, key), content)
    shutil.rmtree(folder / "runs" / key, ignore_errors=True)
    cuda = torch.cuda.is_available() and not baseline
    return Result(
        key=key,
        job=task.job,
        outcome="done",
        rows=trained.rows,
        classes=classes,
        positive=positive,
        cleaning=trained.cleaning,
        scores=scores,
        at_point=at_point,
        notes=sorted({str(warning.message) for warning in caught if warning.category is UserWarning}),
        cost=Cost(
            seconds=trained.seconds,
            peak_memory_mib=peak_memory_mib(),
            gpu_memory_mib=torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
            model_mib=trained.model_mib,
            reviews_per_second=_rate(trained.timed, texts),
            device=torch.cuda.get_device_name() if cuda else f"{available_cores()} CPU cores",
            packages={name: version(name) for name in _PACKAGES},
        ),
        history=trained.history,
        logits_sha256=hashlib.sha256(content).hexdigest(),
    )


def _classifier(task: Task, checkpoints: Path) -> Trained:
    recipe = recipe_from(task.job.recipe)
    backend = get_backend(recipe.backend)
    loaded = backend.load(recipe)
    cleaned, cleaning = clean(task.train, recipe.data, loaded.tokenizer.count)
    resume: Literal["if-possible", False] = "if-possible" if any(checkpoints.glob("checkpoint-*")) else False
    parts = {"train": cleaned, "validation": task.validation}
    plan = make_plan(recipe, backend, loaded, parts)
    learned = learn(plan, Run(folder=checkpoints, resume=resume))
    normalize, model = NORMALIZERS[recipe.data.normalization], learned.model.eval().to(best_device())
    return Trained(
        score=lambda texts: backend.logits(model, [normalize(text) for text in texts], encoder=loaded),
        timed=lambda texts: score(model, loaded.tokenizer, loaded.tokenizer.encode([normalize(text) for text in texts])),
        classes=plan.classes,
        positive=plan.positive,
        rows=len(cleaned),
        seconds=learned.seconds,
        model_mib=learned.model_mib,
        cleaning=cleaning,
        history=learned.history,
    )


def _baseline(task: Task) -> Trained:
    texts, labels = task.train.require_complete()
    data = decode(task.job.recipe.get("data", {}), DataConfig, "data")
    classes, positive = classes_of(task.train, data.positive)
    normalize = NORMALIZERS[data.normalization]
    started = time.perf_counter()
    model = Baseline.fit([normalize(text) for text in texts], class_indices(labels, classes), len(classes), seed=0)
    seconds = time.perf_counter() - started

    def scores(texts: list[str]) -> NDArray[np.floating]:
        return model.scores([normalize(text) for text in texts])

    size = sum(len(content) for content in model.to_files().values()) / 2**20
    return Trained(scores, scores, classes, positive, len(texts), seconds, size)


def _rate(score: Callable[[list[str]], object], texts: list[str]) -> float:
    score(texts[:8])  # warm up: one-time work is not part of the rate
    started = time.perf_counter()
    score(texts)
    return len(texts) / (time.perf_counter() - started)
