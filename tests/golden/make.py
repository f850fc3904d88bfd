"""Make the golden bundles of the current format: once per format version, and never again after its release.

    python tests/golden/make.py

They hold a tiny random encoder: enough to prove that old files still load, and nothing about accuracy.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

from reviewguard import Classifier
from reviewguard.bundle.manifest import FORMAT_VERSION

HERE = Path(__file__).parent
TEXTS = ["Great kettle, highly recommend it!", "lid rattles a bit but for the price its ok", "", "kettle " * 99]


def main() -> None:
    spec = importlib.util.spec_from_file_location("conftest", HERE.parent / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    target = HERE / f"format-{FORMAT_VERSION}"
    if target.exists():
        sys.exit(f"{target} is there already; a released format's golden bundle is never made again")
    with open(conftest.SAMPLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:60]
    data = ([row["text"] for row in rows], [row["label"] for row in rows])
    with tempfile.TemporaryDirectory() as scratch:
        encoder = conftest.make_tiny_bert(Path(scratch))
        settings = {"revision": "", "weights_sha256": "", "max_length": 32, "repo": str(encoder)}
        classifier = Classifier("minilm-logreg", **{f"encoder.{name}": value for name, value in settings.items()})
        classifier.train(data)
        classifier.save(target / "saved")
        classifier.export(target / "exported")
        trained = classifier._trained()  # one text is empty, which predict_proba refuses
        probabilities = trained.manifest.decision.probabilities(trained.logits(TEXTS)[0])
        expected = {"texts": TEXTS, "probabilities": probabilities.tolist()}
    shutil.rmtree(target / ".cache", ignore_errors=True)
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
