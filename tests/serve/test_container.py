"""The files of examples/serve, without a container engine: the linter, and the script that the container starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from http_server import server

FOLDER = Path(__file__).parents[2] / "examples" / "serve"


@pytest.mark.skipif(shutil.which("hadolint", path=Path(sys.executable).parent) is None, reason="hadolint has no package here")
def test_the_dockerfile_has_no_faults() -> None:
    command = [Path(sys.executable).with_name("hadolint"), FOLDER / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_container_starts_the_model_in_its_folder(exported: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "REVIEWGUARD_MODEL": str(exported)}
    with server("--name", "kettles", "--host", "127.0.0.1", program=[str(FOLDER / "start.sh")], **environment) as (_, url):
        answer = httpx.post(f"{url}/predict", json={"text": "a kettle"}).raise_for_status().json()
        ready = httpx.get(f"{url}/readyz").json()
    assert answer["model"] == {"name": "kettles", "sha256": ready["sha256"]}
    assert ready["model"] == "kettles"


def test_kserve_probes_routes_that_exist() -> None:
    service = yaml.safe_load((FOLDER / "kserve.yaml").read_text())
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
