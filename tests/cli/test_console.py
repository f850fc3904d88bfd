"""The effect of a command does not depend on the reader of its output."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reviewguard import Classifier
from reviewguard.cli import console


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    path = tmp_path_factory.mktemp("console") / "tiny.toml"
    path.write_text(f'backend = "logreg"\n[encoder]\nrepo = "{tiny_encoder}"\nmax_length = 32\n')
    return path


def start(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which $RG is the command-line application."""
    variables = {**os.environ, "RG": f"{sys.executable} -m reviewguard", **environment}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=variables)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """600 rows with characters that few encodings support; their 9,000 bytes of output do not fill a pipe."""
    path = tmp_path / "in.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"a kettle \u4e2d \U0001f600 number {i}", "\u20ac fake" if i % 2 else "real"] for i in range(600))
    return path


def test_training_is_saved_if_the_reader_leaves(recipe: Path, rows: Path, tmp_path: Path) -> None:
    """The reader of both streams exits immediately, and the console cannot display the labels."""
    done = start(
        f"set -o pipefail; $RG train {rows} -p {recipe} --out {tmp_path}/model --set data.near_duplicates=0 2>&1 | true",
        PYTHONIOENCODING="ascii",
    )
    assert "Traceback" not in done.stdout + done.stderr
    model = Classifier.from_pretrained(tmp_path / "model")
    assert model.classes_.tolist() == ["real", "\u20ac fake"]
    assert model.manifest.training is not None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_full_device_gives_a_one_line_error(recipe: Path, rows: Path, tmp_path: Path) -> None:
    done = start(f"$RG predict {rows} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: [Errno 28] No space left on device"
    assert "Traceback" not in done.stderr


def test_predictions_on_standard_output_are_utf8(rows: Path) -> None:
    """Piped output is data, independent of the encoding of the console."""
    done = subprocess.run(
        [sys.executable, "-m", "reviewguard", "predict", rows],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0, done.stderr
    result = list(csv.DictReader(io.StringIO(done.stdout.decode("utf-8"))))
    assert len(result) == 600
    assert result[0]["text"] == "a kettle \u4e2d \U0001f600 number 0"


def test_a_reader_that_leaves_is_no_error(rows: Path) -> None:
    done = start(f"$RG predict {rows} | head -n 1")
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr
    assert done.stdout.startswith("text,label,predicted_label")


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    from reviewguard.cli.output import show

    show({"label": "\u20ac"}, "", as_json=True)
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"label": "\u20ac"}


def test_a_failed_stream_discards_output() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = console.Lasting(os.fdopen(writing, "w"))
    assert stream.write("x" * 100_000) == 100_000
    stream.flush()
    assert stream.write("more") == 4
    stream.flush()
    stream.close()
