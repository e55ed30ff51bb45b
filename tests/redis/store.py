"""A real redis-server of the test's own: loopback, a free port, nothing kept on disk, gone with the test.

Killed and started again it keeps its address and has forgotten everything, as one without persistence does.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.ports import free_port


class RedisServer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self, timeout: float = 20) -> None:
        """Start it and wait until it answers.  In a test with a running loop: ``asyncio.to_thread``."""
        program = shutil.which("redis-server")
        assert program, "redis-server is missing: `make tools` installs it"
        settings = {"port": self._port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *arguments, "--dir", str(self._folder)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(
                    f"redis-server did not start: {(self._folder / 'redis.log').read_text()}"
                )
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def ask(self, *words: str) -> str:
        """One command in Redis's own protocol, and its answer as it came."""
        message = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
            connection.sendall(f"*{len(words)}\r\n{message}".encode())
            return connection.recv(65_536).decode(errors="replace")

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG\r\n"
        except OSError:
            return False
