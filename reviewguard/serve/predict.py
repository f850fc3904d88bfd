"""The routes of the API: predictions, health and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from reviewguard.serve.arms import Answer, Arms
from reviewguard.serve.guard import Refused
from reviewguard.serve.schemas import ErrorResponse, PredictRequest, PredictResponse

ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in (400, 401, 408, 413, 422, 429, 503)}
router = APIRouter()


@router.post("/predict", responses=ERRORS, summary="Predict one text or several")
async def predict(body: PredictRequest, request: Request) -> PredictResponse:
    """Predict the class, the decision and the probabilities of each text."""
    if (body.text is None) == (body.texts is None):
        raise Refused(422, "invalid", "send either text or texts")
    if (body.key is not None and body.text is None) or (body.keys is not None and body.texts is None):
        raise Refused(422, "invalid", "key goes with text, and keys with texts")
    texts = [body.text] if body.text is not None else body.texts or []
    keys = body.keys if body.key is None else [body.key]
    if keys is not None and len(keys) != len(texts):
        raise Refused(422, "invalid", f"there are {len(texts)} texts and {len(keys)} keys")
    arms: Arms = request.app.state.arms
    return PredictResponse.of(arms, await answered(arms, texts, keys, request))


@router.get("/healthz", summary="Whether the process is alive")
async def healthz() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "alive"}


@router.get("/readyz", summary="Whether the model is loaded")
async def readyz(request: Request) -> dict[str, str]:
    """Answer once the model is loaded, which it is before the first request."""
    served = request.app.state.arms.champion.served
    return {"status": "ready", "model": served.name, "sha256": served.sha256}


@router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, latency, texts, batches and decisions."""
    state = request.app.state
    arms = (state.arms.champion, state.arms.challenger)
    state.metrics.waiting.set(sum(arm.waiting for arm in arms if arm is not None))
    return Response(state.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def answered(arms: Arms, texts: list[str], keys: list[str] | None, request: Request) -> list[Answer]:
    """Predict texts with the models that were current when the request arrived, unless the client leaves first.

    Raises:
        Refused: If there are too many texts.
    """
    most = request.app.state.limits.texts
    if len(texts) > most:
        raise Refused(422, "too_many_texts", f"the request has {len(texts)} texts; at most {most} are accepted")
    answer = asyncio.ensure_future(arms.answers(texts, keys))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise Refused(499, "client_left", "the client left")
        answers: list[Answer] = answer.result()
    finally:
        leaving.cancel()
    return answers


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
