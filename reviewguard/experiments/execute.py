"""One run, from rows to scores, in the process that `runs` starts for it."""

from __future__ import annotations

import hashlib
import shutil
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
import torch

from reviewguard import files
from reviewguard.bundle.decision import Decision, log_odds
from reviewguard.data.clean import clean
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.reviews import class_indices
from reviewguard.evaluation import operating
from reviewguard.evaluation.metrics import measure
from reviewguard.experiments.jobs import Cost, Result, Task
from reviewguard.experiments.results import scores_file
from reviewguard.inference.engines.cores import available_cores
from reviewguard.inference.scoring import score
from reviewguard.models.device import best_device, peak_memory_mib
from reviewguard.training.backends import get_backend, recipe_from
from reviewguard.training.finetuning.checkpoint import Run
from reviewguard.training.plan import make_plan
from reviewguard.training.train import learn

_PACKAGES = ("reviewguard", "torch", "transformers", "scikit-learn")
#: Number of rows that speed is measured on.
_TIMED: int = 1000


def execute(task: Task, key: str, folder: Path) -> Result:
    """Train, score, write the scores, and measure the cost."""
    recipe, checkpoints = recipe_from(task.job.recipe), folder / "runs" / key
    backend, normalize = get_backend(recipe.backend), NORMALIZERS[recipe.data.normalization]
    resume: Literal["if-possible", False] = "if-possible" if any(checkpoints.glob("checkpoint-*")) else False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        loaded = backend.load(recipe)
        cleaned, cleaning = clean(task.train, recipe.data, loaded.tokenizer.count)
        plan = make_plan(recipe, backend, loaded, {"train": cleaned, "validation": task.validation})
        loaded = plan.encoder
        classes, positive = plan.classes, plan.positive
        learned = learn(plan, Run(folder=checkpoints, resume=resume))
        model = learned.model.eval().to(best_device())

        logits, scores, at_point, truncated = {}, {}, {}, {}
        inputs: list[str] = []
        decision = Decision()
        if positive is not None:
            held_out = plan.labelled["validation"]
            validation = backend.logits(model, held_out.texts, encoder=loaded)
            point = operating.operating_point(validation, held_out.y, classes.index(positive), task.job.max_fpr, name=positive)
            decision = Decision(operating_point=point)
        for name, part in task.scored.items():
            texts, labels = part.require_complete(classes)
            normalized = [normalize(text) for text in texts]
            inputs += normalized
            y, logits[name] = class_indices(labels, classes), backend.logits(model, normalized, encoder=loaded)
            truncated[name] = sum(item.truncated for item in loaded.tokenizer.encode(normalized))
            scores[name] = measure(y, log_odds(logits[name]), classes, positive)
            if positive is not None:
                words = np.array([len(text.split()) for text in texts])
                at_point[name] = measure(y, decision.scores(logits[name], classes.index(positive), words), classes, positive)
    scores_file(folder, key).parent.mkdir(exist_ok=True)
    content = safetensors.numpy.save({name: np.ascontiguousarray(values, dtype=np.float32) for name, values in logits.items()})
    files.replace(scores_file(folder, key), content)
    shutil.rmtree(checkpoints, ignore_errors=True)
    cuda = torch.cuda.is_available()
    return Result(
        key=key,
        job=task.job,
        outcome="done",
        rows=len(cleaned),
        classes=classes,
        positive=positive,
        cleaning=cleaning,
        scores=scores,
        at_point=at_point,
        truncated=truncated,
        notes=sorted({str(warning.message) for warning in caught if warning.category is UserWarning}),
        cost=Cost(
            seconds=learned.seconds,
            peak_memory_mib=peak_memory_mib(),
            gpu_memory_mib=torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
            model_mib=learned.model_mib,
            reviews_per_second=_rate(
                lambda texts: score(model, loaded.tokenizer, loaded.tokenizer.encode(texts)), inputs[:_TIMED]
            ),
            device=torch.cuda.get_device_name() if cuda else f"{available_cores()} CPU cores",
            packages={name: version(name) for name in _PACKAGES},
        ),
        history=learned.history,
        logits_sha256=hashlib.sha256(content).hexdigest(),
    )


def _rate(score: Callable[[list[str]], object], texts: list[str]) -> float:
    score(texts[:8])  # warm up: one-time work is not part of the rate
    started = time.perf_counter()
    score(texts)
    return len(texts) / (time.perf_counter() - started)
