"""The built wheel, installed alone into an empty environment, predicts; and it carries what it should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from reviewguard.data.reviews import read

ROOT = Path(__file__).parent.parent
EXPORT = ROOT / "tests" / "golden" / "format-1" / "exported"
#: Python reads it first: from then on the process has no network.
NO_NETWORK = """
import socket


def refused(*_, **__):
    raise AssertionError("the network was asked for")


socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refused
"""
OPENVINO = """
from reviewguard import Classifier

classifier = Classifier.from_pretrained("exported", runtime="openvino")
assert classifier.runtime.startswith("openvino"), classifier.runtime
assert classifier.predict(["It boils fast, and the lid stays shut."]).shape == (1,)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"reviewguard"}
    for needed in ("reviewguard/py.typed", "reviewguard/presets/minilm-logreg.toml"):
        assert needed in names
    box = {path.relative_to(ROOT).as_posix() for path in (ROOT / "reviewguard" / "builtin").rglob("*") if path.is_file()}
    assert box <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "reviewguard").rglob("*.py")}
    assert sources <= set(names)


def environment(version: str, constraints: str, requirement: str, folder: Path) -> Path:
    """Install into an empty environment; returns the folder of its commands."""
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip(f"Python {version} is not here")
    subprocess.run([python, "-m", "venv", folder], check=True)
    binaries = folder / "bin"
    pip = [binaries / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / constraints, requirement]
    subprocess.run(pip, check=True)
    return binaries


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "constraints"),
    [("3.11", "tests/floor/base.txt"), *((version, "constraints.txt") for version in ("3.11", "3.12", "3.13", "3.14"))],
)
def test_the_base_install_predicts_and_has_no_torch(
    version: str, constraints: str, wheel: Path, tmp_path: Path, sample: Path
) -> None:
    binaries = environment(version, constraints, str(wheel), tmp_path / "venv")
    for heavy in ("torch", "transformers", "sklearn", "scipy", "pandas"):
        assert subprocess.run([binaries / "python", "-c", f"import {heavy}"], capture_output=True).returncode, heavy
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "sitecustomize.py").write_text(NO_NETWORK)
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([binaries / "python", "-c", "import socket; socket.create_connection(('localhost', 9))"], check=True)
    subprocess.run([binaries / "reviewguard", "predict", sample, "--out", tmp_path / "boxed.csv"], check=True, cwd=tmp_path)
    assert (tmp_path / "boxed.csv").read_text(encoding="utf-8").startswith("text,label,category,rating,predicted_label,")
    command = [binaries / "reviewguard", "predict", sample, "--model", EXPORT, "--out", tmp_path / "out.csv"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").startswith("text,label,category,rating,predicted_label,")
    refused = subprocess.run([*command[:1], "evaluate", sample, "--model", EXPORT], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 1
    assert "pip install 'reviewguard[train]'" in refused.stderr


#: Of each extra, commands that need it. "exported" is a golden export, and "tiny.toml" a recipe over a tiny encoder.
COMMANDS = {
    "gguf": [["python", "-c", "import gguf, torch, reviewguard.models.gguf"]],
    "serve": [["python", "-c", "from reviewguard.serve import app; app('exported')"]],
    "ray": [["python", "-c", "from reviewguard.serve import deployment; deployment('exported')"]],
    "openvino": [["python", "-c", OPENVINO]],
    "files": [["reviewguard", "predict", "parquet/sample.parquet", "--model", "exported", "--out", "predicted.csv"]],
    "scale": [["reviewguard", "predict", "parquet", "--engine", "ray", "--model", "exported", "--out", "predicted"]],
    "train": [["reviewguard", "train", "sample.csv", "--preset", "tiny.toml", "--out", "model"]],
    "qlora": [["reviewguard", "train", "sample.csv", "--preset", "tiny-qlora.toml", "--out", "model"]],
    "export": [
        ["reviewguard", "train", "sample.csv", "--preset", "tiny.toml", "--out", "model"],
        ["reviewguard", "export", "model", "--out", "onnx"],
        ["reviewguard", "predict", "sample.csv", "--model", "onnx", "--out", "predicted.csv"],
    ],
    "experiments": [["reviewguard", "compare", "sample.csv", "--presets", "tfidf", "--seeds", "1", "--out", "compared"]],
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("version", "extra"),
    # With other Pythons torch comes with gigabytes of CUDA here.
    [
        *(("3.11", extra) for extra in COMMANDS),
        *((v, extra) for v in ("3.12", "3.13", "3.14") for extra in ("openvino", "scale")),
    ],
)
def test_each_extra_brings_what_it_is_for(
    version: str, extra: str, wheel: Path, tiny_encoder: Path, sample: Path, tmp_path: Path
) -> None:
    binaries = environment(version, "constraints.txt", f"{wheel}[{extra}]", tmp_path / "venv")
    shutil.copytree(EXPORT, tmp_path / "exported")
    shutil.copy(sample, tmp_path / "sample.csv")
    (tmp_path / "parquet").mkdir()
    parquet.write_table(pa.table({"text": read(sample).texts}), tmp_path / "parquet" / "sample.parquet")
    encoder = f'[encoder]\nrepo = "{tiny_encoder}"\nmax_length = 32\n'
    (tmp_path / "tiny.toml").write_text(f'backend = "logreg"\n{encoder}')
    (tmp_path / "tiny-qlora.toml").write_text(f'backend = "finetune"\nadapter = "qlora"\n{encoder}[loop]\nepochs = 1\n')
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}
    for command, *arguments in COMMANDS[extra]:
        done = subprocess.run([binaries / command, *arguments], cwd=tmp_path, env=quiet, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
