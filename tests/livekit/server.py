"""A real livekit-server of the test's own: loopback, free ports, gone with the test.

It is started the way the development server is, with the same configuration; killed and started again
it keeps its ports and keys, as a server that came back would.
"""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import yaml

from supervisor.livekit import dev_server
from tests.ports import free_port

KEY = "devkey"
SECRET = "for-tests-on-loopback-only-0123456789abcdef"


class LiveKitServer:
    def __init__(
        self,
        folder: Path,
        *,
        webhook_urls: Sequence[str] = (),
        log_level: str = "info",
        departure_timeout: int = 20,
        redis: str = "",
    ) -> None:
        """With ``redis``, an address, it is one node of the servers that share that store."""
        self.key = KEY
        self.secret = SECRET
        self.port = free_port()
        self.log = folder / "livekit-server.log"
        self._config = folder / "livekit-server.yaml"
        self._program = dev_server.find_server(os.environ, print)
        self._process: subprocess.Popen[bytes] | None = None
        self._answered_at = 0.0
        text = dev_server.render_config(
            port=self.port,
            keys={self.key: self.secret},
            rtc_port=free_port(),
            webhook_urls=webhook_urls,
            webhook_key=self.key,
            log_level=log_level,
            departure_timeout=departure_timeout,
        )
        if redis:
            text += yaml.safe_dump({"redis": {"address": redis}})
        folder.mkdir(parents=True, exist_ok=True)
        dev_server.write_config(self._config, text)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 20) -> None:
        """Start it and wait until it answers.  In a test with a running loop: ``asyncio.to_thread``."""
        assert not self.running, "the server is running already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "--config", self._config],
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"livekit-server did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        self._answered_at = time.monotonic()

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def stop(self, grace: float = 3) -> None:
        """SIGTERM, as an operator would; it waits for participants, so SIGKILL after ``grace`` seconds."""
        if self._process is not None:
            # It loses a SIGTERM that comes in the first tenth of a second after it answers.
            time.sleep(max(0.0, self._answered_at + 0.2 - time.monotonic()))
            self._process.terminate()
            try:
                self._process.wait(timeout=grace)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def stop_twice(self, timeout: float = 20) -> None:
        """SIGTERM, and once more: the second one does not wait for participants."""
        process = self._process
        assert process is not None, "the server is not running"
        time.sleep(max(0.0, self._answered_at + 0.2 - time.monotonic()))
        process.terminate()
        time.sleep(0.2)
        process.terminate()
        process.wait(timeout=timeout)
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.http_url, timeout=1) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False
