"""The routes of the API: predictions, health and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from reviewguard.inference.scoring import Prediction
from reviewguard.serve.guard import Refused
from reviewguard.serve.schemas import ErrorResponse, PredictRequest, PredictResponse
from reviewguard.serve.served import Served

ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in (401, 408, 413, 422, 429, 503)}
router = APIRouter()


@router.post("/predict", responses=ERRORS, summary="Predict one text or several")
async def predict(body: PredictRequest, request: Request) -> PredictResponse:
    """Predict the class, the decision and the probabilities of each text."""
    if (body.text is None) == (body.texts is None):
        raise Refused(422, "invalid", "send either text or texts")
    texts = [body.text] if body.text is not None else body.texts or []
    served, predictions = await predicted(texts, request)
    return PredictResponse.of(served, predictions)


@router.get("/healthz", summary="Whether the process is alive")
async def healthz() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "alive"}


@router.get("/readyz", summary="Whether the model is loaded")
async def readyz(request: Request) -> dict[str, str]:
    """Answer once the model is loaded, which it is before the first request."""
    return {"status": "ready", "model": request.app.state.served.name, "sha256": request.app.state.served.sha256}


@router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, latency, texts, batches and decisions."""
    state = request.app.state
    state.metrics.waiting.set(state.batcher.waiting)
    return Response(state.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def predicted(texts: list[str], request: Request) -> tuple[Served, list[Prediction]]:
    """Predict texts with the model that is current when the request arrives, unless the client leaves first.

    Raises:
        Refused: If there are too many texts.
    """
    state = request.app.state
    served: Served = state.served
    if len(texts) > state.limits.texts:
        raise Refused(422, "too_many_texts", f"the request has {len(texts)} texts; at most {state.limits.texts} are accepted")
    answer = asyncio.ensure_future(state.batcher.predictions(texts, served.trained))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise Refused(499, "client_left", "the client left")
        predictions: list[Prediction] = answer.result()
    finally:
        leaving.cancel()
    state.metrics.count(served.name, predictions)
    return served, predictions


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
