"""Requests to an ASGI application without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
from fastapi import FastAPI

T = TypeVar("T")


def ask(api: FastAPI, scenario: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    """Run a scenario with a client of a started application."""

    async def whole() -> T:
        async with (
            asyncio.timeout(60),
            api.router.lifespan_context(api),
            httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client,
        ):
            return await scenario(client)

    return asyncio.run(whole())
