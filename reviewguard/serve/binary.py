"""Tensors that follow the JSON of a request as binary data, as Triton's clients send them by default.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope

from reviewguard.serve.guard import Refused

LENGTH: Final = "inference-header-content-length"
#: Digits of a length at most; Python refuses to convert thousands of them.
_DIGITS: Final = 18


class BinaryRoute(APIRoute):
    """A route whose requests may be binary; its function sees the JSON that says the same."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route, with the converted request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            # Triton's clients name no content type.
            headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
            scope = {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}
            return await handler(_Read(scope, request.receive, _json(await request.body(), request.headers.get(LENGTH))))

        return handle


class _Read(Request):
    """A request whose body has been read."""

    def __init__(self, scope: Scope, receive: Receive, content: bytes) -> None:
        super().__init__(scope, receive)
        self._content = content

    async def body(self) -> bytes:
        return self._content


def _json(content: bytes, length: str | None) -> bytes:
    if length is None:
        return content
    if not length.isdecimal() or len(length) > _DIGITS or int(length) > len(content):
        raise Refused(422, "invalid", f"the header {LENGTH} must be the number of bytes of the JSON in the body")
    head, tail = content[: int(length)], content[int(length) :]
    if not tail:
        return head
    try:
        body = json.loads(head)
        [tensor] = body["inputs"]
        if "data" in tensor:
            raise Refused(422, "invalid", "the input has data, and binary data follow the JSON")
        if tensor.get("parameters", {}).get("binary_data_size", len(tail)) != len(tail):
            raise Refused(422, "invalid", f"binary_data_size is not {len(tail)}, the number of bytes after the JSON")
        body = {**body, "inputs": [{**tensor, "data": _texts(tail)}]}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return head  # its fault is reported as that of any other request
    return json.dumps(body).encode()


def _texts(content: bytes) -> list[str]:
    """Strings in the binary format: each as its length in four bytes, little-endian, and its bytes in UTF-8."""
    texts, start = [], 0
    try:
        while start < len(content):
            (length,) = struct.unpack_from("<I", content, start)
            start += 4 + length
            if start > len(content):
                raise ValueError(f"a string of {length} bytes goes beyond the end")
            texts.append(content[start - length : start].decode())
    except (struct.error, ValueError) as error:
        raise Refused(422, "invalid", f"the binary data are malformed: {error}") from error
    return texts
