"""Libraries that classify texts on a CPU. benchmarks/cpu_inference.py measures each in its own process.

    python benchmarks/_contenders.py '{"contender": "ours, onnxruntime int8", ...}'

The last line of output is a JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

CONVERT = """
import sys
from sentence_transformers import SentenceTransformer
source, backend, folder = sys.argv[1:]
SentenceTransformer(source, backend=backend, device="cpu").save_pretrained(folder)
"""
Predict = Callable[[list[str]], list[str]]
#: Packages that candidates use; some may be missing.
PACKAGES = ("transformers", "sentence-transformers", "optimum-onnx", "optimum-intel", "onnxruntime", "openvino")
#: Most tokens of a text, for every candidate.
MAX_LENGTH = 256
#: Number of texts for single predictions, and for the warm-up.
SINGLE, WARM = 100, 16


def ours(spec: dict[str, Any], **how: Any) -> Predict:
    """This project, in torch or from an export."""
    from reviewguard import Classifier

    classifier = Classifier.from_pretrained(spec["export"] if how else spec["saved"], **how)
    return lambda texts: classifier.predict(texts).tolist()


def pipeline(spec: dict[str, Any]) -> Predict:
    """The pipeline of transformers, as in its documentation, with the best of three batch sizes."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(spec["huggingface"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec["huggingface"])
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")

    def predict(texts: list[str], batch_size: int = 0) -> list[str]:
        answers = classify(texts, batch_size=batch_size or best, truncation=True, max_length=spec["max_length"])
        return [answer["label"] for answer in answers]

    best = 1
    sample = spec["calibrate"]
    if len(sample) > 1:
        best = min((1, 8, 32), key=lambda size: seconds(lambda: predict(sample, size)))
    return predict


def prepare_pipeline(encoder: Path, folder: Path) -> None:
    """Write the files for `pipeline`: an encoder with a random two-class head, and its tokenizer."""
    import transformers

    transformers.AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)


def sentence_transformers(spec: dict[str, Any], backend: str = "torch") -> Predict:
    """Sentence embeddings with scikit-learn's logistic regression."""
    folder = spec["encoder"]
    if backend != "torch":
        folder = str(Path(spec["texts"]).with_name(f"sentence-transformers-{backend}"))
        if not Path(folder).exists():  # in a separate process, so that its memory does not count
            command = [sys.executable, "-c", CONVERT, spec["encoder"], backend, folder]
            if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
                raise SystemExit(1)  # it has printed the reason
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(folder, backend=backend, device="cpu")
    encoder.max_seq_length = spec["max_length"]
    head = _head(encoder.encode, spec)
    return lambda texts: head.predict(encoder.encode(texts, show_progress_bar=False)).tolist()


def setfit(spec: dict[str, Any]) -> Predict:
    """A SetFit model with the same encoder and kind of head."""
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel

    body = SentenceTransformer(spec["encoder"], device="cpu")
    body.max_seq_length = spec["max_length"]
    model = SetFitModel(model_body=body, model_head=_head(body.encode, spec), labels=["fake", "real"])
    return lambda texts: list(model.predict(texts))


def fastembed(spec: dict[str, Any]) -> Predict:
    """Sentence embeddings by onnxruntime; fastembed downloads its models from the Hub."""
    from fastembed import TextEmbedding

    encoder = TextEmbedding("sentence-transformers/all-MiniLM-L6-v2")
    head = _head(lambda texts: np.stack(list(encoder.embed(texts))), spec)
    return lambda texts: head.predict(np.stack(list(encoder.embed(texts)))).tolist()


CONTENDERS: dict[str, Callable[[dict[str, Any]], Predict]] = {
    "transformers pipeline": pipeline,
    "sentence-transformers, torch": sentence_transformers,
    "sentence-transformers, onnx": lambda spec: sentence_transformers(spec, "onnx"),
    "sentence-transformers, openvino": lambda spec: sentence_transformers(spec, "openvino"),
    "SetFit": setfit,
    "fastembed": fastembed,
    "ours, torch": ours,
    "ours, onnxruntime fp32": lambda spec: ours(spec, runtime="onnxruntime", precision="fp32"),
    "ours, onnxruntime int8": lambda spec: ours(spec, runtime="onnxruntime", precision="int8"),
    "ours, openvino fp32": lambda spec: ours(spec, runtime="openvino", precision="fp32"),
    "ours, openvino bf16": lambda spec: ours(spec, runtime="openvino", precision="bf16"),
}


def _head(encode: Callable[[list[str]], Any], spec: dict[str, Any]) -> Any:
    """A logistic regression with arbitrary labels; only its cost matters here."""
    from sklearn.linear_model import LogisticRegression

    texts = spec["calibrate"] or ["a", "b"]
    return LogisticRegression().fit(encode(texts), ["fake", "real"] * (len(texts) // 2))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def versions() -> dict[str, str]:
    """Versions of the installed packages."""
    installed = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def peak_memory_mib() -> float:
    """Peak memory of this process. getrusage would include the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main() -> None:
    """Load a candidate, predict once, then measure its speed."""
    spec = json.loads(sys.argv[1])
    available = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
    texts = available[: spec["count"]]
    spec["calibrate"] = [] if spec["cold"] else texts[:WARM]
    predict = CONTENDERS[spec["contender"]](spec)
    predict(texts[:1])
    if spec["cold"]:
        print(json.dumps({"outcome": "measured", "cold_start_seconds": time.time() - spec["started"]}))
        return
    predict(texts[:WARM])
    single = [seconds(lambda text=text: predict([text])) for text in texts[:SINGLE]]
    labels: list[str] = []
    elapsed = seconds(lambda: labels.extend(predict(texts)))
    result = {
        "outcome": "measured",
        "reviews_per_second": len(texts) / elapsed,
        "single_milliseconds": {"p50": 1000 * float(np.percentile(single, 50)), "p99": 1000 * float(np.percentile(single, 99))},
        "peak_memory_mib": peak_memory_mib(),
        "packages": versions(),
        "labels": labels,
    }
    if spec["also"]:
        result["also_seconds"] = seconds(lambda: predict(available[: spec["also"]]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
