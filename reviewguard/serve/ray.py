"""The application on Ray Serve: replicas of a model behind one or several replicas of the API."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from reviewguard.config import decode
from reviewguard.errors import ConfigError, PredictionError, ReviewGuardError
from reviewguard.inference.scoring import Prediction
from reviewguard.serve.application import KEY_VARIABLE, create
from reviewguard.serve.arms import CHALLENGER, CHAMPION, Arm, ArmName, UnavailableError
from reviewguard.serve.batching import OverloadedError
from reviewguard.serve.metrics import Metrics
from reviewguard.serve.served import Served, load, require_same_classes
from reviewguard.serve.settings import Settings

#: Requests that a replica computes together.
_BATCH_REQUESTS: Final = 64
#: How often a request is sent again because the replica that computed it died. Predictions have no effects, so this is safe.
_ATTEMPTS: Final = 3


def deployment(
    model: str | None = None,
    *,
    replicas: int = 1,
    max_replicas: int | None = None,
    cpus: int = 1,
    api_key: str | None = None,
    **settings: Any,
) -> Application:
    """Create the application for Ray Serve: `ray.serve.run(deployment("/models/detector", replicas=4))`.

    The API is one deployment, which answers HTTP; the champion and the challenger are one each, and compute batches of concurrent
    requests. The routes are those of `reviewguard.serve.app`. A replica that dies is replaced, and its requests are sent again.

    Args:
        model: Folder on every node, or Hub id, of a trained model. None: the built-in model.
        replicas: Number of replicas of each model; with `max_replicas`, the minimum.
        max_replicas: Maximum number of replicas, which then follows the load. None: the number is fixed.
        cpus: Number of cores of a replica.
        api_key: Key that requests must send as `Authorization: Bearer KEY`. It is part of the application that Ray stores. None:
            no key is needed.
        **settings: Further fields of `reviewguard.serve.Settings`. `threads` is `cpus`, and `watch_seconds` is not available:
            to replace a model, deploy again, which Ray does replica by replica.

    Raises:
        ConfigError: If a setting is unknown or invalid.
    """
    if "threads" in settings:
        raise ConfigError("threads is not a setting here; set cpus, the number of cores of a replica")
    values = decode({"model": model, **settings, "threads": cpus}, Settings, "settings")
    if values.watch_seconds:
        raise ConfigError("watch_seconds is not available on Ray Serve; to replace the model, deploy the application again")
    names: dict[ArmName, tuple[str | None, str]] = {CHAMPION: (values.model, values.name)}
    if values.challenger is not None:
        names[CHALLENGER] = (values.challenger, values.challenger_name)
    if max_replicas is None:
        scaling: dict[str, Any] = {"num_replicas": replicas}
    else:
        target = {"target_ongoing_requests": _BATCH_REQUESTS // 2}
        scaling = {"autoscaling_config": {"min_replicas": replicas, "max_replicas": max_replicas, **target}}
    replicated = serve.deployment(
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=2 * _BATCH_REQUESTS,  # one batch is computed, and one waits
        **scaling,
    )(_Model)
    models = [replicated.options(name=arm).bind(path, name, values) for arm, (path, name) in names.items()]

    def build() -> FastAPI:
        return create(values, api_key, _RemoteModels(tuple(names), values.limits.queue))

    # Requests beyond the limit must reach the application, which refuses them, and probes must not wait behind them.
    queue = values.limits.queue
    api = serve.deployment(name="api", max_ongoing_requests=2 * queue, max_queued_requests=queue)(serve.ingress(build)())
    return api.bind(*models)


def from_arguments(arguments: Mapping[str, Any]) -> Application:
    """Create the application from the arguments of `serve run reviewguard.serve:from_arguments NAME=VALUE` or of a configuration.

    Args:
        arguments: Arguments of `deployment`, but for the key, which is read from `REVIEWGUARD_API_KEY`.

    Raises:
        ConfigError: If an argument is unknown or invalid.
    """
    own = decode({name: value for name, value in arguments.items() if name in _Own.__struct_fields__}, _Own, "arguments")
    settings = {name: value for name, value in arguments.items() if name not in _Own.__struct_fields__}
    return deployment(**msgspec.structs.asdict(own), api_key=os.environ.get(KEY_VARIABLE) or None, **settings)


class _Own(msgspec.Struct, frozen=True):
    """Arguments of `deployment` that are no settings of the server."""

    replicas: Annotated[int, msgspec.Meta(ge=1)] = 1
    max_replicas: Annotated[int, msgspec.Meta(ge=1)] | None = None
    cpus: Annotated[int, msgspec.Meta(ge=1)] = 1


class _Model:
    """A replica of a model."""

    def __init__(self, path: str | None, name: str, settings: Settings) -> None:
        self._served, self._trained = load(path, name, settings)
        self._batched.set_batch_wait_timeout_s(settings.limits.wait_seconds)  # type: ignore[attr-defined]

    async def served(self) -> Served:
        return self._served

    async def predictions(self, texts: list[str]) -> tuple[Served, list[Prediction] | Exception]:
        # An error that is raised here would arrive with a traceback, which clients must not see.
        return self._served, await self._batched(texts)

    @serve.batch(max_batch_size=_BATCH_REQUESTS)
    async def _batched(self, requests: list[list[str]]) -> list[list[Prediction] | Exception]:
        found = await self._attempt([text for request in requests for text in request])
        if isinstance(found, Exception):
            # One request's texts must not fail the others.
            return [await self._attempt(request) for request in requests]
        starts = itertools.accumulate(map(len, requests), initial=0)
        return [found[start : start + len(request)] for start, request in zip(starts, requests, strict=False)]

    async def _attempt(self, texts: list[str]) -> list[Prediction] | Exception:
        try:
            return await asyncio.to_thread(self._trained.predictions, texts)
        except ReviewGuardError as error:
            return error
        except Exception as error:
            return PredictionError(f"the model failed: {error}")


class _RemoteArm:
    """A model whose replicas Ray Serve runs."""

    def __init__(self, handle: DeploymentHandle[Any], served: Served, queue: int) -> None:
        self.served, self.waiting = served, 0
        self._handle, self._queue = handle, queue

    async def predictions(self, texts: list[str]) -> tuple[Served, list[Prediction]]:
        # As in a process; here, texts that are being computed count too.
        if self.waiting and self.waiting + len(texts) > self._queue:
            raise OverloadedError
        self.waiting += len(texts)
        try:
            self.served, found = await self._sent(texts)
        finally:
            self.waiting -= len(texts)
        if isinstance(found, Exception):
            raise found
        return self.served, found

    async def _sent(self, texts: list[str]) -> tuple[Served, list[Prediction] | Exception]:
        for _ in range(_ATTEMPTS):
            try:
                answer: tuple[Served, list[Prediction] | Exception] = await self._handle.predictions.remote(texts)
            except (RayActorError, DeploymentUnavailableError):
                continue
            return answer
        raise UnavailableError


class _RemoteModels:
    """The models, as replicas that Ray Serve runs."""

    def __init__(self, arms: tuple[ArmName, ...], queue: int) -> None:
        self._arms, self._queue = arms, queue

    @asynccontextmanager
    async def running(self, metrics: Metrics) -> AsyncIterator[list[Arm]]:
        application = serve.get_replica_context().app_name
        handles = [serve.get_deployment_handle(arm, application) for arm in self._arms]
        served = [await handle.served.remote() for handle in handles]
        require_same_classes(*served)
        yield [_RemoteArm(handle, one, self._queue) for handle, one in zip(handles, served, strict=True)]
