"""The application, over ASGI without a socket."""

from __future__ import annotations

import asyncio
import json
import random
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from asgi import ask
from fastapi import FastAPI

from reviewguard import Classifier
from reviewguard.errors import BundleError, ConfigError
from reviewguard.serve import Limits, app, from_environment

JSON = {"Content-Type": "application/json"}
TEXTS = ["Great pan, highly recommend it to everyone!", "lid rattles a bit, but for 12 quid ok", "  ", "Kettle " * 200]


def post(api: FastAPI, body: Any, path: str = "/predict", **more: Any) -> httpx.Response:
    return ask(api, lambda client: client.post(path, json=body, **more))


def test_predictions_are_those_of_the_classifier(exported: Path) -> None:
    api = app(exported, name="kettles")
    answer = post(api, {"texts": TEXTS})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    expected = Classifier.from_pretrained(exported).predict_detailed(TEXTS)
    assert len(body["predictions"]) == 4
    for got, prediction in zip(body["predictions"], expected, strict=True):
        assert (got["label"], got["decision"], got["error"]) == (prediction.label, prediction.decision, prediction.error)
        assert (got["truncated"], got["out_of_distribution"]) == (prediction.truncated, prediction.out_of_distribution)
        assert got["scores"] == pytest.approx(prediction.scores, abs=1e-5)
        assert got["score"] == (None if prediction.score is None else pytest.approx(prediction.score, abs=1e-5))
    assert body["model"]["name"] == "kettles"
    assert len(body["model"]["sha256"]) == 64
    single = post(api, {"text": TEXTS[0]}).json()
    assert single["model"] == body["model"]
    assert single["predictions"][0]["scores"] == pytest.approx(body["predictions"][0]["scores"], abs=1e-5)
    surrogate = ask(api, lambda client: client.post("/predict", content=b'{"text": "\\ud800 kettle"}', headers=JSON))
    assert surrogate.status_code == 200, "a lone surrogate is a character like any other"


def test_concurrent_requests_get_their_own_answers(exported: Path) -> None:
    api = app(exported)
    texts = [f"The kettle number {number} boils fast, and the lid stays shut." for number in range(60)]

    async def scenario(client: httpx.AsyncClient) -> tuple[list[httpx.Response], str]:
        answers = await asyncio.gather(*(client.post("/predict", json={"text": text}) for text in texts))
        return answers, (await client.get("/metrics")).text

    answers, metrics = ask(api, scenario)
    got = [answer.json()["predictions"][0]["scores"]["fake"] for answer in answers]
    np.testing.assert_allclose(got, Classifier.from_pretrained(exported).predict_proba(texts)[:, 0], atol=1e-5)
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(lines['reviewguard_requests_total{route="/predict",status="200"}']) == 60
    assert float(lines['reviewguard_texts_total{arm="champion",model="reviewguard"}']) == 60
    assert float(lines["reviewguard_batch_texts_sum"]) == 60
    assert float(lines["reviewguard_batch_texts_count"]) < 30, "requests that wait are computed together"
    assert float(lines["reviewguard_waiting_texts"]) == 0


def test_health(exported: Path) -> None:
    api = app(exported, api_key="secret")

    async def scenario(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(path) for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")]

    answers = ask(api, scenario)
    assert [answer.status_code for answer in answers] == [200] * 4, "probes have no key"
    assert answers[1].json()["status"] == "ready"


def test_the_open_inference_protocol(exported: Path) -> None:
    api = app(exported, name="kettles")
    tensor = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": TEXTS[:2]}

    async def scenario(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
        infer = "/v2/models/kettles/infer"
        return {
            "metadata": await client.get("/v2/models/kettles"),
            "ready": await client.get("/v2/models/kettles/ready"),
            "all": await client.post(infer, json={"id": "7", "inputs": [tensor]}),
            "some": await client.post(infer, json={"inputs": [tensor], "outputs": [{"name": "label"}]}),
            "other": await client.post("/v2/models/other/infer", json={"inputs": [tensor]}),
            "shape": await client.post(infer, json={"inputs": [{**tensor, "shape": [3]}]}),
            "numbers": await client.post(infer, json={"inputs": [{**tensor, "data": [1, 2]}]}),
        }

    answers = ask(api, scenario)
    assert {name: answer.status_code for name, answer in answers.items()} == {
        **dict.fromkeys(("metadata", "ready", "all", "some"), 200),
        "other": 404,
        "shape": 422,
        "numbers": 422,
    }
    metadata, body = answers["metadata"].json(), answers["all"].json()
    assert body["id"] == "7"
    assert [(one["name"], one["datatype"]) for one in body["outputs"]] == [
        (one["name"], one["datatype"]) for one in metadata["outputs"]
    ]
    outputs = {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in body["outputs"]}
    reference = Classifier.from_pretrained(exported)
    np.testing.assert_allclose(outputs["scores"], reference.predict_proba(TEXTS[:2]), atol=1e-5)
    assert outputs["label"].tolist() == reference.predict(TEXTS[:2]).tolist()
    assert [one["name"] for one in answers["some"].json()["outputs"]] == ["label"]


@pytest.mark.parametrize(
    ("content", "status", "type_"),
    [
        (b'{"texts": ["a", "b", "c", "d"]}', 422, "too_many_texts"),
        (b'{"text": "' + b"a" * 2000 + b'"}', 413, "too_large"),
        (b"{}", 422, "invalid"),
        (b'{"text": "a", "texts": ["b"]}', 422, "invalid"),
        (b'{"texts": []}', 422, "invalid"),
        (b'{"text": 7}', 422, "invalid"),
        (b'{"texts": ["a", null]}', 422, "invalid"),
        (b'{"text": "a", "other": 1}', 422, "invalid"),
        (b'{"text": "\xff"}', 400, "bad_request"),
        (b"[" * 1900, 400, "bad_request"),
        (b'{"text": NaN}', 422, "invalid"),
        (b"", 422, "invalid"),
        (b"not json", 422, "invalid"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_invalid_requests_get_an_error_of_one_shape(exported: Path, content: bytes, status: int, type_: str) -> None:
    api = app(exported, limits=Limits(texts=3, body_bytes=2000))
    answer = ask(api, lambda client: client.post("/predict", content=content, headers=JSON))
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["type"] == type_
    assert answer.json().keys() == {"error"}


def test_random_bodies_never_cause_a_server_error(exported: Path) -> None:
    generator, api = random.Random(0), app(exported, limits=Limits(body_bytes=5000))

    def value(depth: int) -> Any:
        kind = generator.choice(["text", "number", "null", "list", "object"] if depth < 5 else ["text", "number"])
        if kind == "text":
            return "".join(generator.choices(string.printable + "\u4e2d\U0001f600\x00\ud800", k=generator.randrange(40)))
        if kind in ("list", "object"):
            items = [value(depth + 1) for _ in range(generator.randrange(4))]
            return items if kind == "list" else dict(zip(("text", "texts", "x"), items, strict=False))
        return generator.choice([None, True, -1, 1e308, 10**30])

    bodies = [json.dumps(value(0)).encode() for _ in range(300)]
    bodies += [bytes(generator.randrange(256) for _ in range(generator.randrange(200))) for _ in range(100)]

    async def scenario(client: httpx.AsyncClient) -> set[int]:
        statuses = set()
        for body in bodies:
            for path in ("/predict", "/v2/models/reviewguard/infer"):
                answer = await client.post(path, content=body, headers=JSON)
                statuses.add(answer.status_code)
        return statuses

    assert ask(api, scenario) <= {200, 400, 413, 422}


def test_a_key_is_required_and_never_shown(exported: Path) -> None:
    api = app(exported, api_key="secret")

    async def scenario(client: httpx.AsyncClient) -> list[httpx.Response]:
        keys = (None, "Bearer wrong", "Bearer secre", "secret", "Bearer secret")
        return [
            await client.post("/predict", json={"text": "a kettle"}, headers={"Authorization": key} if key else {})
            for key in keys
        ]

    answers = ask(api, scenario)
    assert [answer.status_code for answer in answers] == [401] * 4 + [200]
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert not any("secret" in answer.text for answer in answers)


def test_a_slow_body_is_given_up(exported: Path) -> None:
    api = app(exported, limits=Limits(body_seconds=0.1))

    async def dripping() -> Any:
        yield b'{"text": '
        await asyncio.sleep(5)
        yield b'"a"}'

    answer = ask(api, lambda client: client.post("/predict", content=dripping()))
    assert (answer.status_code, answer.json()["error"]["type"]) == (408, "timeout")


def test_the_schema_describes_every_route(exported: Path) -> None:
    schema = ask(app(exported), lambda client: client.get("/openapi.json")).json()
    assert schema["paths"].keys() >= {"/predict", "/healthz", "/readyz", "/metrics", "/v2/models/{name}/infer"}
    answers = schema["paths"]["/predict"]["post"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("PredictResponse")
    assert answers["429"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorResponse")


def test_it_can_be_mounted(exported: Path) -> None:
    outer = FastAPI()
    inner = app(exported)
    outer.mount("/reviews", inner)

    async def whole() -> httpx.Response:
        # Mounted applications have no lifespan of their own: the outer one starts them.
        async with (
            inner.router.lifespan_context(inner),
            httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://test") as client,
        ):
            return await client.post("/reviews/predict", json={"text": "a kettle"})

    assert asyncio.run(whole()).status_code == 200


def test_invalid_settings_fail_before_a_port_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a preset, which is not trained"):
        app("minilm-logreg")
    with pytest.raises(BundleError, match="does not contain a reviewguard model"):
        app(tmp_path)
    with pytest.raises(ConfigError, match="is not an option; did you mean 'limits'"):
        app(limit=3)
    monkeypatch.setenv("REVIEWGUARD_SERVE", "[]")
    with pytest.raises(ConfigError, match="REVIEWGUARD_SERVE is not a JSON object"):
        from_environment()


def test_from_the_environment(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWGUARD_SERVE", json.dumps({"model": str(exported), "limits": {"texts": 1}}))
    monkeypatch.setenv("REVIEWGUARD_API_KEY", "secret")
    api = from_environment()
    headers = {"Authorization": "Bearer secret"}
    assert post(api, {"texts": ["a", "b"]}, headers=headers).json()["error"]["type"] == "too_many_texts"
    assert post(api, {"text": "a"}).status_code == 401


def test_serving_an_export_imports_no_torch(exported: Path) -> None:
    code = (
        "import sys; from reviewguard.serve import app; app(sys.argv[1], runtime='onnxruntime'); "
        "print([name for name in ('torch', 'transformers', 'sklearn', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(exported)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
