"""The Open Inference Protocol, version 2, which clients of KServe and Triton speak.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request

from reviewguard.inference.scoring import Prediction
from reviewguard.serve.arms import Arms
from reviewguard.serve.binary import BinaryRoute
from reviewguard.serve.guard import Refused
from reviewguard.serve.predict import ERRORS, answered
from reviewguard.serve.schemas import ErrorResponse, InferOutput, InferRequest, InferResponse
from reviewguard.serve.served import Served

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], route_class=BinaryRoute)
MODEL_ERRORS = {**ERRORS, 404: {"model": ErrorResponse}}
#: Version of every model: one is served at a time, and its hash identifies it.
VERSION = "1"


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Whether the process is alive."""
    return {"live": True}


@router.get("/health/ready")
async def ready() -> dict[str, bool]:
    """Whether the model is loaded."""
    return {"ready": True}


@router.get("/models/{name}/ready", responses=MODEL_ERRORS)
async def model_ready(name: str, request: Request) -> dict[str, Any]:
    """Whether a model is loaded."""
    return {"name": _served(name, request.app.state.arms).name, "ready": True}


@router.get("/models/{name}", responses=MODEL_ERRORS)
async def metadata(name: str, request: Request) -> dict[str, Any]:
    """Inputs and outputs of a model."""
    served = _served(name, request.app.state.arms)
    return {
        "name": served.name,
        "versions": [VERSION],
        "platform": "reviewguard",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": output.name, "datatype": output.datatype, "shape": [-1, *output.shape[1:]]}
            for output in _outputs(served, [])
        ],
        "parameters": {"classes": served.classes, "sha256": served.sha256},
    }


@router.post("/models/{name}/infer", responses=MODEL_ERRORS, response_model_exclude_none=True)
async def infer(name: str, body: InferRequest, request: Request) -> InferResponse:
    """Predict the texts of a tensor of strings."""
    arms: Arms = request.app.state.arms
    served = _served(name, arms)
    [tensor] = body.inputs
    if math.prod(tensor.shape) != len(tensor.data):
        raise Refused(422, "invalid", f"the input has {len(tensor.data)} strings, and its shape is {tensor.shape}")
    predictions = [answer.prediction for answer in await answered(arms, tensor.data, None, request)]
    wanted = None if body.outputs is None else {output.name for output in body.outputs}
    outputs = [output for output in _outputs(served, predictions) if wanted is None or output.name in wanted]
    return InferResponse(model_name=served.name, model_version=VERSION, id=body.id, outputs=outputs)


def _served(name: str, arms: Arms) -> Served:
    served = arms.champion.served
    if name != served.name:
        raise Refused(404, "unknown_model", f"there is no model {name!r}; this server has {served.name!r}")
    return served


def _outputs(served: Served, predictions: list[Prediction]) -> list[InferOutput]:
    """Empty texts have empty strings, and probabilities of 0."""
    classes, rows = served.classes, len(predictions)
    scores = [prediction.scores.get(name, 0.0) for prediction in predictions for name in classes]
    return [
        InferOutput(name="label", shape=[rows], datatype="BYTES", data=[one.label or "" for one in predictions]),
        InferOutput(name="decision", shape=[rows], datatype="BYTES", data=[one.decision or "" for one in predictions]),
        InferOutput(name="scores", shape=[rows, len(classes)], datatype="FP32", data=scores),
        InferOutput(
            name="out_of_distribution", shape=[rows], datatype="BOOL", data=[one.out_of_distribution for one in predictions]
        ),
        InferOutput(name="truncated", shape=[rows], datatype="BOOL", data=[one.truncated for one in predictions]),
    ]
