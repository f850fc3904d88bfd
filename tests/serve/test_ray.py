"""The application on a local Ray cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from reviewguard import Classifier
from reviewguard.errors import ConfigError
from reviewguard.serve import deployment, from_arguments

# Disables Ray's usage statistics, which are sent to its developers by default.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

TEXTS = [f"The kettle number {number} boils fast, and the lid stays shut while it pours." for number in range(60)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Ray Serve; the address that it answers at."""
    import ray
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet: dict[str, Any] = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    ray.init(num_cpus=6, object_store_memory=200 * 2**20, **quiet)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def test_replicas_answer_as_the_model_does(cluster: str, models: tuple[Path, Path]) -> None:
    from ray import serve

    champion, challenger = models
    arguments = {
        "model": str(champion),
        "challenger": str(challenger),
        "split": "30",
        "name": "detector",
        "runtime": "onnxruntime",
    }
    serve.run(from_arguments(arguments), name="replicas", route_prefix="/replicas")
    with httpx.Client(base_url=f"{cluster}/replicas", timeout=60) as client:
        body = client.post("/predict", json={"texts": TEXTS}).raise_for_status().json()
        assert client.post("/predict", json={"texts": []}).status_code == 422
        outputs = (
            client.post(
                "/v2/models/detector/infer",
                json={"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS[:2]}]},
            )
            .raise_for_status()
            .json()
        )
        metrics = client.get("/metrics").text
    assert body["model"]["sha256"] != body["challenger"]["sha256"]
    references = dict(
        zip(("champion", "challenger"), (Classifier.from_pretrained(path, runtime="onnxruntime") for path in models), strict=True)
    )
    for arm, reference in references.items():
        rows = [row for row, one in enumerate(body["predictions"]) if one["arm"] == arm]
        assert len(rows) > 5
        got = [body["predictions"][row]["scores"]["fake"] for row in rows]
        np.testing.assert_allclose(got, reference.predict_proba([TEXTS[row] for row in rows])[:, 0], atol=1e-5)
    assert outputs["outputs"][0]["data"] == [one["label"] for one in body["predictions"][:2]]
    assert 'reviewguard_texts_total{arm="challenger",model="detector-challenger"}' in metrics
    serve.delete("replicas")


def test_too_many_texts_are_refused_and_the_rest_are_answered(cluster: str, exported: Path) -> None:
    from ray import serve

    serve.run(deployment(str(exported), limits={"queue": 60}, api_key="secret"), name="full", route_prefix="/full")

    async def scenario() -> list[httpx.Response]:
        headers = {"Authorization": "Bearer secret"}
        async with httpx.AsyncClient(base_url=f"{cluster}/full", timeout=60, headers=headers) as client:
            return await asyncio.gather(*(client.post("/predict", json={"texts": TEXTS}) for _ in range(12)))

    answers = asyncio.run(scenario())
    assert {answer.status_code for answer in answers} == {200, 429}
    assert {answer.json()["error"]["type"] for answer in answers if answer.status_code == 429} == {"overloaded"}
    assert httpx.get(f"{cluster}/full/readyz").status_code == 200, "probes need no key"
    assert httpx.post(f"{cluster}/full/predict", json={"text": "a"}).status_code == 401
    serve.delete("full")


def test_a_replica_that_is_killed_loses_no_request_and_a_new_model_none_either(cluster: str, models: tuple[Path, Path]) -> None:
    from ray import serve

    expected = [Classifier.from_pretrained(path, runtime="onnxruntime").predict_proba([TEXTS[0]])[0, 0] for path in models]
    serve.run(deployment(str(models[0]), replicas=2, runtime="onnxruntime"), name="killed", route_prefix="/killed")
    answers: list[tuple[str, float]] = []

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=f"{cluster}/killed", timeout=60) as client:

            async def once() -> None:
                body = (await client.post("/predict", json={"text": TEXTS[0]})).raise_for_status().json()
                answers.append((body["model"]["sha256"], body["predictions"][0]["scores"]["fake"]))

            async def load(busy: asyncio.Event) -> None:
                while not busy.is_set():
                    await asyncio.gather(*(once() for _ in range(16)))

            for change in (kill, replace):
                done = asyncio.Event()
                loading = asyncio.create_task(load(done))
                await asyncio.to_thread(change)
                done.set()
                await loading

    def kill() -> None:
        processes = psutil.Process().children(recursive=True)
        [first, _] = [one for one in processes if "ServeReplica:killed:champion" in " ".join(one.cmdline())]
        first.kill()

    def replace() -> None:
        serve.run(deployment(str(models[1]), replicas=2, runtime="onnxruntime"), name="killed", route_prefix="/killed")

    asyncio.run(scenario())
    hashes = list(dict.fromkeys(sha256 for sha256, _ in answers))
    assert len(hashes) == 2
    for sha256, score in answers:
        np.testing.assert_allclose(score, expected[hashes.index(sha256)], atol=1e-5)


def test_settings_that_do_not_apply_are_rejected() -> None:
    with pytest.raises(ConfigError, match="set cpus"):
        deployment(threads=2)
    with pytest.raises(ConfigError, match="deploy the application again"):
        deployment(watch_seconds=1)
    with pytest.raises(ConfigError, match="replicsa is not an option"):
        from_arguments({"replicsa": 2})
    with pytest.raises(ConfigError, match="arguments has an invalid value"):
        from_arguments({"replicas": "0"})
