"""Clients that others wrote, against a server in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from http_server import server

from reviewguard import Classifier

TEXTS = ["The kettle boils fast, and the lid stays shut.", "Ein Kessel für Tee, 5 €.", " ", "水壶"]


@pytest.fixture(scope="module")
def url(exported: Path) -> Iterator[str]:
    with server(str(exported), "--name", "kettles", "--runtime", "onnxruntime") as (_, address):
        yield address


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client(url: str, exported: Path, binary: bool) -> None:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("kettles")
    assert client.get_model_metadata("kettles")["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    tensor = triton.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=binary)
    answer = client.infer("kettles", [tensor], request_id="7")
    expected = Classifier.from_pretrained(exported, runtime="onnxruntime").predict_detailed(TEXTS)
    assert answer.get_response()["id"] == "7"
    assert [label or None for label in answer.as_numpy("label").tolist()] == [one.label for one in expected]
    assert [label or None for label in answer.as_numpy("decision").tolist()] == [one.decision for one in expected]
    scores = np.array([[one.scores.get(name, 0.0) for name in ("fake", "real")] for one in expected])
    np.testing.assert_allclose(answer.as_numpy("scores"), scores, atol=1e-5)
    assert answer.as_numpy("scores").dtype == np.float32
    assert answer.as_numpy("truncated").tolist() == [one.truncated for one in expected]


@pytest.mark.parametrize(
    ("length", "tail", "message"),
    [
        ("x", b"", "number of bytes"),
        ("9999", b"", "number of bytes"),
        ("-1", b"", "number of bytes"),
        ("1" * 5000, b"", "number of bytes"),
        (None, b"\x05\x00\x00", "malformed"),
        (None, b"\x05\x00\x00\x00abc", "a string of 5 bytes goes beyond the end"),
        (None, b"\xff\xff\xff\xffabc", "goes beyond the end"),
        (None, b"\x02\x00\x00\x00\xff\xfe", "malformed"),
        (None, b"\x01\x00\x00\x00a" * 2, "the input has 2 strings"),
    ],
)
def test_malformed_binary_requests(url: str, length: str | None, tail: bytes, message: str) -> None:
    head = json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)) if length is None else length}
    answer = httpx.post(f"{url}/v2/models/kettles/infer", content=head + tail, headers=headers)
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]


def test_binary_data_beside_data_or_of_another_size_are_refused(url: str) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
    for more in ({"data": ["a"]}, {"parameters": {"binary_data_size": 4}}):
        head = json.dumps({"inputs": [{**tensor, **more}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = httpx.post(f"{url}/v2/models/kettles/infer", content=head + b"\x01\x00\x00\x00a", headers=headers)
        assert answer.status_code == 422
    head = json.dumps({"inputs": [{**tensor, "data": ["a kettle"]}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = httpx.post(f"{url}/v2/models/kettles/infer", content=head, headers=headers)
    assert answer.json()["outputs"][0]["shape"] == [1], "the length of a request without binary data"


@pytest.mark.parametrize("head", [b"[]", b"{", b'{"inputs": []}', b'{"inputs": [3]}', b'{"inputs": 3}', b"[" * 5000])
def test_binary_requests_whose_json_is_something_else(url: str, head: bytes) -> None:
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = httpx.post(f"{url}/v2/models/kettles/infer", content=head, headers=headers)
    assert answer.status_code in {400, 422}
    assert answer.json()["error"]["message"]
