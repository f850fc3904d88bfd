"""The life of one decoder: trained, interrupted, merged, exported. benchmarks/decoders.py runs this script in separate processes.

    python benchmarks/_decoder.py '{"do": "train", ...}'

The last line of output is a JSON object.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reviewguard import Classifier
from reviewguard.errors import TrainingInterrupted

#: What a template of a chat puts between messages; typed into a review here.
CHAT = {"smollm2": "<|im_end|>\n<|im_start|>assistant\n", "gemma3": "<end_of_turn>\n<start_of_turn>model\n"}


def rows(path: str, split: str, most: int) -> tuple[list[str], list[str]]:
    """Evenly spaced texts and labels of a split."""
    with open(path, encoding="utf-8", newline="") as file:
        kept = [row for row in csv.DictReader(file) if row["split"] == split]
    chosen = [kept[i * len(kept) // most] for i in range(most)]
    return [row["text"] for row in chosen], [row["label"] for row in chosen]


def train(spec: dict[str, Any]) -> dict[str, Any]:
    """Train, and save the model; interrupt after `stop_at` steps and resume if that is set."""
    from reviewguard.training.finetuning import memory

    plans: list[memory.MemoryPlan] = []
    original = memory.plan

    def noted(*arguments: Any) -> memory.MemoryPlan:
        plans.append(original(*arguments))
        return plans[-1]

    memory.plan = noted
    texts, labels = rows(spec["data"], "train", spec["rows"])
    held_out = rows(spec["data"], "validation", spec["validation"])
    classifier, started = Classifier(spec["recipe"], **spec["settings"]), time.perf_counter()
    arguments = {"validation": held_out, "run_dir": spec["run"]}
    if spec.get("stop_at"):
        with interrupted_after(spec["stop_at"]), contextlib.suppress(TrainingInterrupted):
            classifier.train((texts, labels), **arguments)
        arguments["resume"] = True
    report = classifier.train((texts, labels), **arguments)
    history = report.history
    assert history is not None
    classifier.save(spec["out"])
    return {
        "seconds": time.perf_counter() - started,
        "steps": history.epochs[-1].step,
        "resumed": [[one.step, one.restored] for one in history.resumed],
        "model_mib": report.model_mib,
        "plan_gib": plans[-1].needed / 2**30,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "accuracy": report.results["validation"].model.metrics["accuracy"].value,
    }


@contextlib.contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """Send SIGTERM to this process after a step, as a scheduler would."""
    from reviewguard.training.finetuning.callbacks import Stop

    original = Stop.on_step_end

    def on_step_end(self: Stop, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, args, state, control, **more)

    Stop.on_step_end = on_step_end  # type: ignore[method-assign]
    try:
        yield
    finally:
        Stop.on_step_end = original  # type: ignore[method-assign]


def check(spec: dict[str, Any]) -> dict[str, Any]:
    """Compare the saved models with each other, and with what merging, exporting and transformers make of them."""
    import transformers

    texts, labels = rows(spec["data"], "test", spec["scored"])
    straight, resumed = (Classifier.from_pretrained(folder) for folder in spec["models"])
    expected = straight.predict_proba(texts)
    result: dict[str, Any] = {"resumed": difference(expected, resumed.predict_proba(texts))}
    merged = straight.merge(texts)
    of_merged = merged.predict_proba(texts)
    result["merged"] = difference(expected, of_merged)
    with tempfile.TemporaryDirectory() as scratch:
        merged.save(Path(scratch) / "merged")
        exported = Path(spec["exported"])
        report = merged.export(exported, validation=(texts, labels), int8=False)
        result["graph"] = {"logits": report.graphs["fp32"].logits, "mib": report.graphs["fp32"].mib}
        pipeline = transformers.pipeline("text-classification", model=str(Path(scratch) / "merged" / "encoder"), device="cpu")
        answers = pipeline(texts, top_k=None, truncation=True, batch_size=8)
    by_label = [{item["label"]: item["score"] for item in answer} for answer in answers]
    result["pipeline"] = difference(of_merged, np.array([[scores[name] for name in merged.classes_] for scores in by_label]))
    np.save(spec["expected"], of_merged)
    plain, typed = texts[:8], [text[:40] + CHAT[spec["name"]] + text[40:] for text in texts[:4]] + texts[4:8]
    moved = np.abs(merged.predict_proba(typed) - merged.predict_proba(plain)).max(axis=1)
    result["chat"] = {"changed": float(moved[:4].max()), "neighbours": float(moved[4:].max())}
    return result


def predict(spec: dict[str, Any]) -> dict[str, Any]:
    """Predict from the export, without torch."""
    texts, _ = rows(spec["data"], "test", spec["scored"])
    classifier = Classifier.from_pretrained(spec["exported"], runtime="onnxruntime", precision="fp32")
    started = time.perf_counter()
    found = classifier.predict_proba(texts)
    return {
        **difference(np.load(spec["expected"]), found),
        "reviews_per_second": len(texts) / (time.perf_counter() - started),
        "torch": any(name in sys.modules for name in ("torch", "transformers")),
    }


def difference(one: NDArray[np.floating], other: NDArray[np.floating]) -> dict[str, float]:
    """The largest change of a probability, and the share of equal labels."""
    return {
        "probability": float(np.abs(one - other).max()),
        "equal_labels": float((one.argmax(axis=1) == other.argmax(axis=1)).mean()),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps({"outcome": "done", **{"train": train, "check": check, "predict": predict}[given["do"]](given)}))
