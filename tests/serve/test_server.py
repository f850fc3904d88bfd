"""The command `reviewguard serve`, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest


@contextlib.contextmanager
def server(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server on a free port, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "reviewguard", "serve", *arguments, "--port", str(port)]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/readyz").raise_for_status()
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
                time.sleep(0.1)
        yield process, url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the workers too: they hold the pipe
        process.communicate()


def test_requests_in_flight_are_answered_before_it_stops(exported: Path) -> None:
    with server(str(exported), "--name", "kettles", REVIEWGUARD_API_KEY="secret") as (process, url):
        client = httpx.Client(base_url=url, headers={"Authorization": "Bearer secret"}, timeout=30)
        assert client.post("/predict", json={"text": "a kettle"}).json()["model"]["name"] == "kettles"
        assert httpx.post(f"{url}/predict", json={"text": "a kettle"}).status_code == 401
        texts = ["The kettle boils fast, and the lid stays shut while it pours. " * 4] * 256
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(client.post, "/predict", json={"texts": texts}) for _ in range(8)]
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            statuses = {self.status_code for self in (answer.result() for answer in answers)}
        assert statuses == {200}
        _, log = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "secret" not in log
    assert "kettle boils" not in log, "texts are not logged"


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reviewguard", "serve", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the folder")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_workers_share_metrics(exported: Path) -> None:
    with server(str(exported), "--workers", "2") as (_, url):
        for _ in range(40):
            assert httpx.post(f"{url}/predict", json={"text": "a kettle"}).status_code == 200
        lines = httpx.get(f"{url}/metrics").text.splitlines()
    assert 'reviewguard_requests_total{route="/predict",status="200"} 40.0' in lines
