"""No data is sent, and only documented files are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reviewguard.telemetry import SWITCHES

#: A process that predicts with onnxruntime and OpenVINO, trains, exports and plots, and runs for a minute in total; onnxruntime
#: starts sending after forty seconds.
LIFE = """
import sys, time
started = time.monotonic()
from reviewguard import Classifier
encoder, rows, export, run = sys.argv[1:]
texts = ["The kettle boils fast, and the lid stays shut.", "A fine pan."]
tiny = dict(encoder__repo=encoder, encoder__revision="", encoder__weights_sha256="", encoder__max_length=32)
Classifier.from_pretrained(runtime="onnxruntime").predict(texts)
classifier = Classifier("minilm-logreg", **tiny)
classifier.train(rows)
classifier.export(export)
assert "bitsandbytes" not in sys.modules, "it is for four-bit weights"
Classifier.from_pretrained(export, runtime="openvino").predict(texts)
Classifier("minilm-finetune", **tiny, loop__epochs=1).train(rows, run_dir=run)
import matplotlib.pyplot
time.sleep(max(0, 60 - (time.monotonic() - started)))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed; apt-get install strace")
def test_a_process_opens_no_connection_within_a_minute(tmp_path: Path, tiny_encoder: Path, sample: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    home.mkdir()
    traced = ["strace", "-f", "-qq", "-y", "--seccomp-bpf", "-e", "trace=%network,openat,creat,mkdir,mkdirat", "-o", str(log)]
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES and name != "CI"}
    environment |= {"HOME": str(home), "REVIEWGUARD_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"MPLCONFIGDIR": str(tmp_path / "matplotlib"), "TMPDIR": str(tmp_path)}
    started = time.monotonic()
    folders = [tiny_encoder, sample, tmp_path / "export", tmp_path / "run"]
    done = subprocess.run(
        [*traced, sys.executable, "-c", LIFE, *map(str, folders)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "gemm_4bit_forward" not in done.stderr, "bitsandbytes warns about four-bit kernels, which are not used here"
    assert time.monotonic() - started > 60
    calls = log.read_text(errors="replace").splitlines()
    assert len(calls) > 1000, "something was traced"
    connected = [call for call in calls if re.search(r"(connect|sendto|sendmsg|sendmmsg)\(.*AF_INET", call)]
    assert not connected
    written = set()
    for call in calls:
        if (result := re.search(r'(?:openat|creat|mkdir|mkdirat)\([^"]*"([^"]+)".*\) = \d', call)) and (
            "O_CREAT" in call or "mkdir" in call or "O_WRONLY" in call or "O_RDWR" in call
        ):
            written.add(result[1])
    outside = {path for path in written if not path.startswith((str(tmp_path), "/dev/", "/proc/", "/sys/"))}
    assert not outside
    assert sorted(path.relative_to(home).as_posix() for path in home.rglob("*")) == []


def test_switches_are_set_and_user_settings_take_precedence() -> None:
    code = f"import os, reviewguard; print({{name: os.environ[name] for name in {list(SWITCHES)}}})"
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    for chosen in ({}, {"ORT_DISABLE_TELEMETRY": "0", "RAY_USAGE_STATS_ENABLED": "1"}):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment | chosen, check=True)
        assert done.stdout.strip() == str({**SWITCHES, **chosen})


@pytest.mark.parametrize("consent", [None, "1"])
def test_openvino_telemetry_is_disabled_unless_the_user_has_chosen(tmp_path: Path, consent: str | None) -> None:
    if consent:
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel" / "openvino_telemetry").write_text(consent)
    code = "from reviewguard.inference.engines import openvino; import sys; print('openvino_telemetry' in sys.modules)"
    environment = {**os.environ, "HOME": str(tmp_path), "CI": "true"}  # with CI set, the package itself sends nothing
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(bool(consent))
