"""The command `reviewguard serve`, in processes of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from http_server import server


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
