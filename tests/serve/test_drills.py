"""What goes wrong in operation: killed workers, clients that send nothing or garbage, and memory over many requests."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from http_server import server
from scipy.stats import linregress

from reviewguard import Classifier

TEXTS = [f"The kettle number {number} boils fast, and the lid stays shut while it pours." for number in range(64)]


@pytest.fixture(scope="module")
def scores(exported: Path) -> dict[str, float]:
    """The score of each text."""
    table = Classifier.from_pretrained(exported, runtime="onnxruntime").predict_proba(TEXTS)
    return dict(zip(TEXTS, table[:, 0].tolist(), strict=True))


def ask(client: httpx.Client, text: str) -> float:
    """The score that a server answers."""
    (prediction,) = client.post("/predict", json={"text": text}).raise_for_status().json()["predictions"]
    score: float = prediction["scores"]["fake"]
    return score


@pytest.mark.slow
def test_a_killed_worker_gives_no_wrong_answer_and_is_replaced(exported: Path, scores: dict[str, float]) -> None:
    with server(str(exported), "--workers", "2", "--runtime", "onnxruntime") as (process, url):
        supervisor = psutil.Process(process.pid)

        def workers() -> set[int]:
            found = supervisor.children()
            return {one.pid for one in found if one.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(one.cmdline())}

        deadline = time.monotonic() + 60
        while len(workers()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        stop, lost = time.monotonic() + 20, []

        def load(seed: int) -> int:
            chosen, answered = random.Random(seed), 0
            while time.monotonic() < stop:
                text = chosen.choice(TEXTS)
                # A connection of its own: a client of a killed worker must connect again anyway.
                with httpx.Client(base_url=url, timeout=30) as client:
                    try:
                        np.testing.assert_allclose(ask(client, text), scores[text], atol=1e-5)
                        answered += 1
                    except httpx.TransportError as error:
                        lost.append(error)
            return answered

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(load, seed) for seed in range(8)]
            time.sleep(3)
            before = workers()
            psutil.Process(min(before)).kill()
            answered = sum(one.result() for one in running)
        assert answered > 200
        # Only requests that the killed process held; their clients see the closed connection, and no other error.
        assert len(lost) <= 8
        assert len(workers()) == 2
        assert workers() != before


def test_clients_that_send_nothing_stop_nobody(exported: Path, scores: dict[str, float]) -> None:
    with server(str(exported), "--runtime", "onnxruntime") as (_, url):
        host, port = url.removeprefix("http://").split(":")
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        idle = [socket.create_connection((host, int(port))) for _ in range(200)]
        try:
            for number, connection in enumerate(idle):
                connection.sendall((b"", head[:20], head, head + b'{"text": "')[number % 4])
            with httpx.Client(base_url=url, timeout=10) as client:
                for text in TEXTS[:8]:
                    np.testing.assert_allclose(ask(client, text), scores[text], atol=1e-5)
        finally:
            for connection in idle:
                connection.close()


def hostile(count: int) -> Iterator[bytes]:
    """Bodies that a client should not send."""
    source = random.Random(42)
    seeds = [
        b'{"text": "a kettle"}',
        b'{"texts": ["a kettle", "\xc3\xa9 \xe6\xb0\xb4"], "keys": ["k", "l"]}',
        b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a kettle"]}]}',
    ]
    values = [
        b"null",
        b"true",
        b"1e999",
        b"-1",
        b"9" * 5000,
        b'""',
        b'"\\ud800"',
        b'"\\udfff\\ud800"',
        b"[]",
        b"{}",
        b'"\\u0000"',
        b"NaN",
    ]
    for number in range(count):
        kind = number % 8
        if kind == 0:  # damaged bytes
            body = bytearray(source.choice(seeds))
            for _ in range(source.randint(1, 6)):
                body[source.randrange(len(body))] = source.randrange(256)
            yield bytes(body)
        elif kind == 1:  # cut off
            body = bytearray(source.choice(seeds))
            yield bytes(body[: source.randrange(len(body))])
        elif kind == 2:  # deep
            depth = source.choice([100, 10_000, 100_000])
            yield source.choice([b"[" * depth, b'{"text":' * depth, b'{"texts": ' + b"[" * depth + b"]" * depth + b"}"])
        elif kind == 3:  # wrong types
            name = source.choice([b"text", b"texts", b"key", b"keys", b"inputs", b"other"])
            yield b'{"' + name + b'": ' + source.choice(values) + b"}"
        elif kind == 4:  # wrong types further in
            yield b'{"texts": [' + b", ".join(source.choices(values, k=source.randint(1, 5))) + b"]}"
        elif kind == 5:  # huge
            yield b'{"text": "' + b"a" * source.choice([100_000, 1_000_000, 2_000_000]) + b'"}'
        elif kind == 6:  # noise
            yield source.randbytes(source.randint(0, 300))
        else:  # strange, and allowed
            texts = ["".join(map(chr, source.choices([*range(32, 0xD800), *range(0xE000, 0x11000)], k=20))) for _ in range(3)]
            yield httpx.Request("POST", "http://x", json={"texts": texts}).content


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_hostile_bodies_get_named_errors_and_leave_the_server_as_it_was(
    exported: Path, scores: dict[str, float], count: int
) -> None:
    statuses: dict[int, int] = {}
    memory: list[tuple[int, int]] = []
    with server(str(exported), "--runtime", "onnxruntime") as (process, url), httpx.Client(base_url=url, timeout=60) as client:
        server_process = psutil.Process(process.pid)
        for number, body in enumerate(hostile(count)):
            path = ("/predict", "/v2/models/reviewguard/infer")[number // 8 % 4 == 3]
            answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if answer.status_code != 200:
                error = answer.json()["error"]
                assert error["type"] and error["message"], body[:200]
            if number % 50 == 0:
                text = TEXTS[number // 50 % len(TEXTS)]
                np.testing.assert_allclose(ask(client, text), scores[text], atol=1e-5)
                memory.append((number, server_process.memory_info().rss))
    assert statuses.keys() <= {200, 400, 413, 422}, statuses
    assert {200, 400, 413, 422} <= statuses.keys(), "each kind occurs"
    if count >= 10_000:
        late = np.array(memory[len(memory) // 2 :])
        fit = linregress(late[:, 0], late[:, 1])
        # Bytes per request. An allocator's pages come and go, so the interval is wide; a leaked body would be 100,000.
        assert fit.slope - 2 * fit.stderr <= 0 or fit.slope < 200, (fit.slope, fit.stderr)
