"""Prometheus metrics of a server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reviewguard.inference.scoring import Prediction

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one application. With several processes, set PROMETHEUS_MULTIPROC_DIR, and each reports the sum of all."""

    def __init__(self) -> None:
        """Create the metrics in a registry of their own."""
        self._registry = registry = CollectorRegistry()
        names = ["route", "status"]
        self.requests = Counter("reviewguard_requests", "Requests.", names, registry=registry)
        self.seconds = Histogram("reviewguard_request_seconds", "Latency.", ["route"], registry=registry, buckets=_SECONDS)
        self.texts = Counter("reviewguard_texts", "Texts predicted.", ["model", "arm"], registry=registry)
        self.batch = Histogram("reviewguard_batch_texts", "Texts computed together.", registry=registry, buckets=_TEXTS)
        self.decisions = Counter("reviewguard_decisions", "Decisions.", ["model", "arm", "decision"], registry=registry)
        self.lost = Counter("reviewguard_shadow_lost_texts", "Texts that the shadow missed.", ["error"], registry=registry)
        self.swaps = Counter("reviewguard_swaps", "Replacements of the model.", ["outcome"], registry=registry)
        self.waiting = Gauge("reviewguard_waiting_texts", "Texts that wait.", registry=registry, multiprocess_mode="livesum")

    def count(self, model: str, arm: str, predictions: Iterable[Prediction]) -> None:
        """Count predictions by their decision; "error" stands for empty texts."""
        for prediction in predictions:
            self.texts.labels(model, arm).inc()
            self.decisions.labels(model, arm, prediction.decision or "error").inc()

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class Counted:
    """Middleware that counts requests and measures their latency."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # a client that leaves gets no status

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # A path that somebody made up must not become a label.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
