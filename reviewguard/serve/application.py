"""The ASGI application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from reviewguard.config import decode
from reviewguard.errors import ConfigError, PredictionError
from reviewguard.inference.decision_log import DecisionLog
from reviewguard.serve import predict, protocol
from reviewguard.serve.arms import Arm, Arms, UnavailableError
from reviewguard.serve.batching import ClosedError, OverloadedError
from reviewguard.serve.guard import Guard, Refused
from reviewguard.serve.local import LocalModels
from reviewguard.serve.metrics import Counted, Metrics
from reviewguard.serve.settings import Settings
from reviewguard.serve.watch import watch

#: Environment variables of `from_environment`.
SETTINGS_VARIABLE: Final = "REVIEWGUARD_SERVE"
KEY_VARIABLE: Final = "REVIEWGUARD_API_KEY"


def app(model: str | os.PathLike[str] | None = None, *, api_key: str | None = None, **settings: Any) -> FastAPI:
    """Create the application that answers with a model. The model is loaded here, so a fault shows before a port is opened.

    Args:
        model: Folder or Hub id of a trained model, as for `reviewguard.Classifier.from_pretrained`. None: the built-in model.
        api_key: Key that requests must send as `Authorization: Bearer KEY`; it is never logged. None: no key is needed.
        **settings: Further fields of `reviewguard.serve.Settings`, such as `limits=Limits(texts=64)`.

    Returns:
        An ASGI application, which can also be mounted in another FastAPI application.

    Raises:
        BundleError: If the model cannot be loaded.
        ConfigError: If a setting is unknown or invalid.
    """
    values = {"model": None if model is None else os.fspath(model), **settings}
    return application(decode(values, Settings, "settings"), api_key)


def from_environment() -> FastAPI:
    """Create the application in a worker process, from `Settings` as JSON in `REVIEWGUARD_SERVE` and from `REVIEWGUARD_API_KEY`.

    For servers that take a factory without arguments, such as `uvicorn --factory reviewguard.serve:from_environment`.

    Raises:
        BundleError: If the model cannot be loaded.
        ConfigError: If a setting is unknown or invalid.
    """
    try:
        values = msgspec.json.decode(os.environ.get(SETTINGS_VARIABLE, "{}"), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{SETTINGS_VARIABLE} is not a JSON object: {error}") from error
    return application(decode(values, Settings, SETTINGS_VARIABLE), os.environ.get(KEY_VARIABLE) or None)


class Models(Protocol):
    """The champion, and the challenger if there is one."""

    def running(self, metrics: Metrics) -> AbstractAsyncContextManager[list[Arm]]:
        """Answer requests until the context ends."""


def application(settings: Settings, api_key: str | None) -> FastAPI:
    """Create the application of one process from settings; see `app`."""
    return create(settings, api_key, LocalModels(settings))


def create(settings: Settings, api_key: str | None, models: Models) -> FastAPI:
    """Create the application that answers with models."""
    log = None if settings.log is None else DecisionLog(Path(settings.log), settings.log_texts)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with models.running(metrics) as [champion, *challenger]:
            api.state.arms = Arms(
                champion=champion,
                challenger=challenger[0] if challenger else None,
                share=settings.split / 100 if challenger and not settings.shadow else 0.0,
                shadow=settings.shadow,
                experiment=settings.experiment,
                log=log,
                metrics=metrics,
            )
            watching = asyncio.create_task(watch(api.state, settings)) if settings.watch_seconds else None
            try:
                yield
            finally:
                if watching is not None:
                    watching.cancel()
                await api.state.arms.finish()

    api = FastAPI(title="reviewguard", summary="Text classification", lifespan=lifespan)
    api.state.limits, api.state.metrics = settings.limits, metrics
    api.include_router(predict.router)
    api.include_router(protocol.router)
    api.add_middleware(Guard, limits=settings.limits, api_key=api_key)
    api.add_middleware(Counted, metrics=metrics)
    _handle_errors(api)
    return api


def _handle_errors(api: FastAPI) -> None:
    """Give every error the same shape."""

    def handle(kind: type[Exception], convert: Callable[[Any], Refused]) -> None:
        @api.exception_handler(kind)
        async def _(request: Request, error: Exception) -> JSONResponse:
            refused = convert(error)
            return JSONResponse(refused.content, refused.status, refused.headers)

    handle(Refused, lambda refused: refused)
    handle(OverloadedError, lambda _: Refused(429, "overloaded", "too many texts are waiting; retry later", {"Retry-After": "1"}))
    handle(ClosedError, lambda _: Refused(503, "stopping", "the server is stopping", {"Retry-After": "1"}))
    handle(UnavailableError, lambda _: Refused(503, "unavailable", "no replica of the model answers", {"Retry-After": "1"}))
    handle(PredictionError, lambda error: Refused(500, "prediction_failed", str(error)))
    handle(RequestValidationError, lambda error: Refused(422, "invalid", _first(error)))
    handle(HTTPException, lambda error: Refused(error.status_code, _slug(error.status_code), str(error.detail), error.headers))


def _slug(status: int) -> str:
    """The name of a status, such as "not_found"."""
    return HTTPStatus(status).phrase.lower().replace(" ", "_")


def _first(error: RequestValidationError) -> str:
    """The first fault, without the text that was sent."""
    [first, *more] = error.errors()
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" + (f" (and {len(more)} more faults)" if more else "")
