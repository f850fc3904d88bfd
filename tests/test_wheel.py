"""The built wheel, installed alone into an empty environment, predicts; and it carries what it should."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXPORT = ROOT / "tests" / "golden" / "format-1" / "exported"
#: Python reads it first: from then on the process has no network.
NO_NETWORK = """
import socket


def refused(*_, **__):
    raise AssertionError("the network was asked for")


socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refused
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
    box = {path.relative_to(ROOT).as_posix() for path in (ROOT / "reviewguard" / "default_model").rglob("*") if path.is_file()}
    assert box <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "reviewguard").rglob("*.py")}
    assert sources <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "constraints"),
    [("3.11", "tests/floor/base.txt"), *((version, "constraints.txt") for version in ("3.11", "3.12", "3.13", "3.14"))],
)
def test_the_base_install_predicts_and_has_no_torch(
    version: str, constraints: str, wheel: Path, tmp_path: Path, sample: Path
) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip(f"Python {version} is not here")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / "bin"
    pip = [binaries / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / constraints, wheel]
    subprocess.run(pip, check=True)
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
