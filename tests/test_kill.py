"""Processes killed at random moments: nothing is torn, and nothing that was reported written is lost.

A host process imports what a task needs, then forks a child for each of twenty trials and kills it (SIGKILL) after a random
time. Each child appends a line to a log after every step that it was told is done.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from manifests import PLAIN

from reviewguard import Classifier
from reviewguard.bundle.folder import open_bundle, write_bundle
from reviewguard.data.reviews import read
from reviewguard.inference.streaming import predict_file
from reviewguard.training.backends._features import FeatureStore

TRIALS = 20

HOST = """
import os, random, signal, sys, time
from pathlib import Path

root, seed, trials, longest = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
log = os.open(root / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

def report(line):
    os.write(log, f"{line}\\n".encode())

TASK

moments = random.Random(seed)
killed = 0
for trial in range(trials):
    pid = os.fork()
    if pid == 0:
        try:
            task(trial)
        except BaseException as error:
            report(f"failed {error!r}")
        os._exit(0)
    time.sleep(moments.uniform(0, longest))
    os.kill(pid, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
print(killed)
"""


def kill_twenty_times(task: str, root: Path, longest: float) -> list[str]:
    """Run a task under the host, and return the output of its children."""
    seed = secrets.randbelow(10**6)
    print("seed", seed)  # noqa: T201 - pytest shows it when a test fails
    command = [sys.executable, "-c", HOST.replace("TASK", task), str(root), str(seed), str(TRIALS), str(longest)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= TRIALS // 2, "most children must die in the middle, or the test shows nothing"
    lines = (root / "log").read_text().splitlines()
    assert not [line for line in lines if line.startswith("failed")]
    return lines


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are made by fork")

SAVE = """
import msgspec
from reviewguard.bundle.folder import open_bundle, write_bundle

def task(trial):
    manifest = open_bundle(root / "model").manifest
    while True:
        manifest = msgspec.structs.replace(manifest, max_length=manifest.max_length + 1)
        content = str(manifest.max_length).encode() * 20_000
        write_bundle(root / "model", manifest, {f"file-{i}": content for i in range(4)})
        report(manifest.max_length)
"""


def test_killed_while_saving(tmp_path: Path) -> None:
    first = msgspec.structs.replace(PLAIN, max_length=1)
    write_bundle(tmp_path / "model", first, {})
    lines = kill_twenty_times(SAVE, tmp_path, longest=0.4)
    last = max(map(int, lines))
    bundle = open_bundle(tmp_path / "model")  # verifies every hash
    saved = bundle.manifest.max_length
    assert last <= saved <= last + TRIALS, "the newest reported save, or one that a trial finished and could not report"
    assert {bundle.read(f"file-{i}") for i in range(4)} == {str(bundle.manifest.max_length).encode() * 20_000}
    assert [int(line) for line in lines] == sorted({int(line) for line in lines}), "a reported save is never undone"


FEATURES = """
from reviewguard.training.backends import _features
from reviewguard.config import EncoderConfig
from reviewguard.models.encoder import load_encoder
import torch

torch.set_num_threads(1)
_features.SHARD_ROWS = 8
add = _features.FeatureStore.add

def reporting(store, keys, vectors):
    add(store, keys, vectors)
    report(" ".join(key.hex() for key in keys))

_features.FeatureStore.add = reporting

# Loaded once before forking. Nothing is computed here, so no threads exist at the fork.
loaded = load_encoder(EncoderConfig(repo=ENCODER, max_length=32))

def task(trial):
    _features.features(loaded, [f"kettle {trial} number {i}" for i in range(20_000)])
"""


def test_killed_while_caching_features(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWGUARD_CACHE", str(tmp_path))
    lines = kill_twenty_times(FEATURES.replace("ENCODER", repr(str(tiny_encoder))), tmp_path, longest=1.0)
    reported = {bytes.fromhex(key) for line in lines for key in line.split()}
    assert reported
    (folder,) = (tmp_path / "features").iterdir()
    for shard in folder.glob("*.safetensors"):
        assert hashlib.sha256(shard.read_bytes()).hexdigest() == shard.stem
    found = dict(FeatureStore(folder, 32).find(reported))
    assert found.keys() == reported
    assert np.isfinite(np.stack(list(found.values()))).all()


STREAM = """
import json
from reviewguard import Classifier, files
from reviewguard.inference import streaming

streaming.CHUNK_TEXTS = 16
replace = files.replace

def reporting(path, content):
    time.sleep(0.01)  # so that twenty children cannot finish all rows on a fast machine
    replace(path, content)
    report(json.loads(content)["rows"])

files.replace = reporting

def task(trial):
    streaming.predict_file(Classifier.from_pretrained(root / "model", precision="fp32"), root / "in.csv", root / "out.csv")
"""


def test_killed_while_predicting(tmp_path: Path, tiny_settings: dict[str, object], sample: Path) -> None:
    reviews = read(sample)
    Classifier("minilm-logreg", **tiny_settings).fit(reviews.texts, reviews.labels).export(tmp_path / "model")
    rows = [f'{i},"kettle, number {i}\nboils"' for i in range(15_000)]
    (tmp_path / "in.csv").write_text("\n".join(["id,text", *rows]) + "\n")
    lines = kill_twenty_times(STREAM, tmp_path, longest=0.8)
    assert [int(line) for line in lines] == sorted({int(line) for line in lines}), "reported rows are not computed again"
    reported = max(map(int, lines))
    assert reported < 15_000, "the run must not end before the last kill"
    assert json.loads((tmp_path / "out.csv.progress").read_text())["rows"] >= reported

    classifier = Classifier.from_pretrained(tmp_path / "model")
    summary = predict_file(classifier, tmp_path / "in.csv", tmp_path / "out.csv")
    assert summary.resumed >= reported
    predict_file(classifier, tmp_path / "in.csv", tmp_path / "whole.csv")
    interrupted, whole = (list(_rows(tmp_path / name)) for name in ("out.csv", "whole.csv"))
    assert [row[:3] for row in interrupted] == [row[:3] for row in whole], "every row once, in order, with its label"
    # Different chunks change the last digits of a float.
    np.testing.assert_allclose([float(row[3]) for row in interrupted[1:]], [float(row[3]) for row in whole[1:]], atol=2e-6)


def _rows(path: Path):
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.reader(file)
