"""A process can be forked after predicting, as done by gunicorn with preload and by multiprocessing on Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reviewguard import Classifier

#: The parent predicts with each engine, and its child must return the same predictions within the time limit.
FORK = """
import os, sys
import numpy as np
from reviewguard import Classifier
texts = ["The kettle boils fast and the lid stays shut. " * 8] * 64
model, export = sys.argv[1:]
models = [Classifier.from_pretrained(model)]
models += [Classifier.from_pretrained(export, runtime=engine, precision="fp32") for engine in ("onnxruntime", "openvino")]

def answers():
    return [one.predict_proba(some) for one in models for some in (texts, texts[:1])]

before = answers()
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for own, other in zip(answers(), before):
    np.testing.assert_allclose(own, other, atol=1e-4)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_predicts(classifier: Classifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "model")
    classifier.export(tmp_path / "export")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # several threads per process
    command = [sys.executable, "-c", FORK, str(tmp_path / "model"), str(tmp_path / "export")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
