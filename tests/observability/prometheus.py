"""A real Prometheus of the test's own: loopback, a free port, a second between looks, gone with the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import yaml

from grafana.source import prometheus as rules
from tests.ports import free_port

GRAFANA = Path(__file__).resolve().parents[2] / "grafana"
JOB = "livekit-supervisor"
PACE = 0.1


def promtool(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    return _tool("promtool", *arguments, stdin=stdin)


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return _tool("amtool", *arguments)


def _tool(name: str, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name)
    assert program is not None, f"{name} is not installed: make tools"
    done = subprocess.run(
        [program, *map(str, arguments)],
        input=stdin if stdin is not None else b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), "")


class Prometheus:
    """Scrapes one supervisor and evaluates our rules, with every ``for`` shortened to a second."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        self.log = folder / "prometheus.log"
        self.target = f"127.0.0.1:{target}"
        self._folder = folder
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Prometheus]:
        program = shutil.which("prometheus")
        assert program is not None, "prometheus is not installed: make tools"
        self._write()
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                program,
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "1"},
            )
        try:
            async with aiohttp.ClientSession() as self._session:
                await self.until(self._scraped, 30)
                yield self
        finally:
            process.kill()
            await process.wait()

    def _write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self._folder / "alerts.yml"), str(self._folder / "recordings.yml")],
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [self.target]}]}],
        }
        alerts = rules.alert_rules("docs", wait=_short, interval=_short)
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (self._folder / "alerts.yml").write_text(yaml.safe_dump(alerts))
        (self._folder / "recordings.yml").write_text(yaml.safe_dump(rules.recording_rules(interval=_short)))

    # --- what it knows ---

    async def get(self, path: str, **parameters: str | list[str]) -> Any:
        assert self._session is not None, "Prometheus is not running"
        query = [(k, v) for k, vs in parameters.items() for v in ([vs] if isinstance(vs, str) else vs)]
        async with self._session.get(f"http://127.0.0.1:{self.port}{path}", params=query) as answer:
            document = json.loads(await answer.read())
        assert document["status"] == "success", (parameters, document)
        return document["data"]

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an instant query, each with ``metric`` and ``value``."""
        data = await self.get("/api/v1/query", query=expr)
        return cast(list[dict[str, Any]], data["result"]) if data["resultType"] == "vector" else []

    async def labels(self, selector: str) -> list[dict[str, str]]:
        """Those of every series that the selector finds."""
        return cast(list[dict[str, str]], await self.get("/api/v1/series", **{"match[]": selector}))

    async def firing(self, **labels: str) -> set[str]:
        """The names of alerts that fire with these labels."""
        return {told["alertname"] for told in await self._firing() if labels.items() <= told.items()}

    async def _firing(self) -> list[dict[str, str]]:
        found = (await self.get("/api/v1/alerts"))["alerts"]
        return [alert["labels"] for alert in found if alert["state"] == "firing"]

    async def fires(self, name: str, within: float) -> dict[str, str]:
        """Wait until that alert fires; its labels."""
        found: list[dict[str, str]] = []

        async def fired() -> bool:
            found.extend(told for told in await self._firing() if told["alertname"] == name)
            return bool(found)

        await self.until(fired, within, name)
        return found[0]

    async def ends(self, name: str, within: float) -> None:
        """Wait until that alert fires no more."""

        async def ended() -> bool:
            return name not in await self.firing()

        await self.until(ended, within, f"not {name}")

    async def until(self, condition: Callable[[], Any], within: float, what: str = "a scrape") -> None:
        deadline = asyncio.get_running_loop().time() + within
        while True:
            with contextlib.suppress(aiohttp.ClientError, json.JSONDecodeError):
                if await condition():
                    return
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"no {what} within {within:g} s; {self.log.read_text()[-2000:]}")
            await asyncio.sleep(PACE)

    async def _scraped(self) -> bool:
        return [s["value"][1] for s in await self.query("up")] == ["1"]


def _short(duration: str) -> str:
    return "0s" if duration == "0s" else "1s"
