"""Prediction from an export in a process without the optional packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reviewguard import Classifier

# Importing any of these fails, as with the base installation.
WITHOUT_EXTRAS = """
import sys


class Absent:
    names = {"torch", "transformers", "sklearn", "scipy", "pandas", "pyarrow", "joblib", "rensa", "onnx", "onnxscript"}
    names |= {"openvino"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def models(tiny_settings: dict[str, object], sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    classifier = Classifier("minilm-logreg", **tiny_settings)
    classifier.train(sample)
    classifier.save(folder / "saved")
    classifier.export(folder / "exported")
    np.save(folder / "expected.npy", classifier.predict_proba(["a good kettle", "ok"]))
    return folder


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_export_predicts_without_the_extras(models: Path) -> None:
    code = """
import numpy as np
from reviewguard import Classifier

classifier = Classifier.from_pretrained(sys.argv[1] + "/exported")
expected = np.load(sys.argv[1] + "/expected.npy")
np.testing.assert_allclose(classifier.predict_proba(["a good kettle", "ok"]), expected, atol=1e-4)
assert classifier.predict(["a good kettle"]).shape == (1,)
"""
    done = run(code, models)
    assert done.returncode == 0, done.stderr


def test_a_cached_export_predicts_without_network(models: Path, tmp_path: Path) -> None:
    """The real client, offline, with a cache in its own layout: snapshots of links to blobs."""
    repository, commit = tmp_path / "models--me--my-model", "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    exported = models / "exported"
    for number, path in enumerate(sorted(path for path in exported.rglob("*") if path.is_file())):
        (repository / "blobs" / str(number)).write_bytes(path.read_bytes())
        link = repository / "snapshots" / commit / path.relative_to(exported)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(repository / "blobs" / str(number))
    code = """
import os
os.environ |= {"HF_HUB_CACHE": sys.argv[2], "HF_HUB_OFFLINE": "1"}
import numpy as np
from reviewguard import Classifier

for revision in (None, "0123456789abcdef0123456789abcdef01234567"):
    classifier = Classifier.from_pretrained("me/my-model", revision=revision)
    expected = np.load(sys.argv[1] + "/expected.npy")
    np.testing.assert_allclose(classifier.predict_proba(["a good kettle", "ok"]), expected, atol=1e-4)
"""
    done = run(code, models, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        ("Classifier.from_pretrained(sys.argv[1] + '/saved')", "train"),
        ("Classifier('minilm-logreg').fit(['a'], ['b'])", "train"),
        ("Classifier('minilm-logreg').train('x.csv')", "train"),
        ("Classifier.from_pretrained(sys.argv[1] + '/exported').evaluate((['a'], ['fake']))", "train"),
    ],
)
def test_missing_extras_are_reported_with_the_pip_command(models: Path, call: str, extra: str) -> None:
    code = f"""
from reviewguard import Classifier, MissingExtra

try:
    {call}
except MissingExtra as error:
    print(error)
"""
    done = run(code, models)
    assert f"run: pip install 'reviewguard[{extra}]'" in done.stdout, done.stderr


def test_the_command_line_predicts_without_the_extras(models: Path, sample: Path, tmp_path: Path) -> None:
    code = "sys.argv[0] = 'reviewguard'\nfrom reviewguard.cli.app import main\nmain()\n"
    done = run(code, "predict", sample, "--model", models / "exported", "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text().count("\n") >= 321
    refused = run(code, "train", sample, "--preset", "minilm-logreg", "--out", tmp_path / "m")
    assert refused.returncode == 1
    assert "error: this needs the package" in refused.stderr
    assert "Traceback" not in refused.stderr
