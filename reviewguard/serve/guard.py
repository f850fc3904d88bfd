"""Middleware that protects the application: size and time of bodies, keys, and errors of one shape."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reviewguard.serve.settings import Limits

#: Paths that need no key: probes of an orchestrator, which has none.
OPEN_PATHS = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, type_: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Take the status, a word for programs, a message for people, and further headers."""
        super().__init__(message)
        self.status, self.type, self.message, self.headers = status, type_, message, dict(headers or {})

    @property
    def content(self) -> dict[str, dict[str, str]]:
        """The body of the answer, as `reviewguard.serve.schemas.ErrorResponse` describes it."""
        return {"error": {"type": self.type, "message": self.message}}


class Guard:
    """Reads each body within the limits before the application sees the request, and checks the key."""

    def __init__(self, app: ASGIApp, limits: Limits, api_key: str | None) -> None:
        """Wrap an application.

        Args:
            app: The application.
            limits: Limits of the server.
            api_key: Key that requests must send as `Authorization: Bearer KEY`. None: no key is needed.
        """
        self._app, self._limits, self._api_key = app, limits, api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._require_key(scope)
            async with asyncio.timeout(self._limits.body_seconds):
                body = await self._body(scope, receive)
        except Refused as refused:
            await _answer(send, refused)
            return
        except TimeoutError:
            await _answer(send, Refused(408, "timeout", f"no complete body within {self._limits.body_seconds:g} seconds"))
            return
        if body is not None:
            await self._app(scope, _replayed(body, receive), send)

    def _require_key(self, scope: Scope) -> None:
        # Under a prefix, as on Ray or where the application is mounted, the path begins with the prefix.
        if self._api_key is None or scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_PATHS:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        # Compared in constant time, so that the answer's time does not reveal how much of a guess is right.
        if not hmac.compare_digest(given, b"Bearer " + self._api_key.encode()):
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refused(401, "unauthorized", "send the header Authorization: Bearer KEY", headers)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None if the client left."""
        most = self._limits.body_bytes
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise Refused(413, "too_large", f"the body has {int(length)} bytes; at most {most} are accepted")
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > most:
                raise Refused(413, "too_large", f"the body has more than {most} bytes")
            if not message.get("more_body"):
                return b"".join(chunks)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()  # tells when the client leaves
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, refused: Refused) -> None:
    headers = {"Content-Type": "application/json", **refused.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    # A body that was not read to its end would be read as the next request.
    await send({"type": "http.response.start", "status": refused.status, "headers": [*encoded, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": json.dumps(refused.content).encode()})
