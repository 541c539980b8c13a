"""/metrics, /healthz and /readyz, over a real socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from prometheus_client import CollectorRegistry

from gateway.observe.http import HealthServer
from gateway.observe.metrics import Metrics


@asynccontextmanager
async def served(problems: list[str], host: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
    async def say() -> list[str]:
        return problems

    async def registry() -> CollectorRegistry:
        return Metrics("1.2.3").registry

    server = HealthServer(registry, say)
    listener = socket.create_server((host, 0))
    bound, port = listener.getsockname()[:2]
    await server.start(listener)
    shown = f"[{bound}]" if ":" in bound else bound
    try:
        async with httpx.AsyncClient(base_url=f"http://{shown}:{port}", timeout=5, trust_env=False) as client:
            yield client
    finally:
        await server.stop()


async def test_ready() -> None:
    async with served([]) as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "problems": [], "warnings": []})


async def test_not_ready_says_why_and_lives_on() -> None:
    problems = ["10 bytes free under data_dir, the floor is 500000000"]
    async with served(problems) as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "problems": problems, "warnings": []})
        assert (await client.get("/healthz")).status_code == 200
        problems.clear()
        assert (await client.get("/readyz")).status_code == 200


async def test_metrics_are_prometheus_text() -> None:
    async with served([]) as client:
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert 'gateway_build_info{version="1.2.3"} 1.0' in answer.text


async def test_nothing_else_is_there() -> None:
    async with served([]) as client:
        for path in ("/", "/docs", "/metrics/../etc/passwd", "/openapi.json"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/readyz")).status_code == 405
