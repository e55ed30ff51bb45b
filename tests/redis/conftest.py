"""Clusters of LiveKit nodes on a Redis of their own, gone with the test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.redis.cluster import Cluster


class MakeCluster(Protocol):
    async def __call__(self, nodes: int = 1, *, daemon: bool = True, **settings: Any) -> Cluster: ...


@pytest.fixture
async def make_cluster(tmp_path: Path, runtime_dir: Path) -> AsyncIterator[MakeCluster]:
    """Starts a cluster and its daemon (``daemon=False``: not yet)."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(nodes: int = 1, *, daemon: bool = True, **settings: Any) -> Cluster:
            cluster = Cluster(tmp_path, runtime_dir, nodes, **settings)
            stack.push_async_callback(cluster.close)
            await cluster.start()
            if daemon:
                await cluster.daemon.start()
            return cluster

        yield make
